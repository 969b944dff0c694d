select
    tenant,
    residency
from {{ source('lake', 'tenants') }}
