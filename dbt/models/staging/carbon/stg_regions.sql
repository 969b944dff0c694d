select
    region,
    zone,
    residency,
    cast(pue as double) as pue
from {{ source('lake', 'regions') }}
