select
    source as usage_source,
    hour,
    service,
    tenant,
    region,
    cast(vcpu_hours as double) as vcpu_hours,
    cast(cpu_utilization as double) as cpu_utilization,
    cast(memory_gb_hours as double) as memory_gb_hours,
    cast(storage_tb_hours as double) as storage_tb_hours,
    cast(network_gb as double) as network_gb,
    cast(gpu_hours as double) as gpu_hours,
    cast(requests as double) as requests,
    cast(hour at time zone 'UTC' as date) as day
from {{ source('lake', 'resource_usage') }}
