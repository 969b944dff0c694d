{#- Fails for figures outside [minimum, maximum] and for NaN and infinity; null passes. -#}
{% test in_range(model, column_name, minimum="cast('-infinity' as double)", maximum="cast('infinity' as double)") %}
    select {{ column_name }}
    from {{ model }}
    where
        not isfinite(cast({{ column_name }} as double))
        or {{ column_name }} < {{ minimum }}
        or {{ column_name }} > {{ maximum }}
{% endtest %}
