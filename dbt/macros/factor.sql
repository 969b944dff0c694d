{#- One emission factor as a column of the one row of factors; null where the table lacks it. -#}
{% macro factor(name) -%}
    cast(max(value) filter (where factor = '{{ name }}') as double) as {{ name }}
{%- endmacro %}
