{#- Fails for every row for which `condition` is false or null. -#}
{% test always(model, condition) %}
    select *
    from {{ model }}
    where not coalesce({{ condition }}, false)
{% endtest %}
