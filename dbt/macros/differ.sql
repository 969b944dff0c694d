{#- True where two figures differ by more than rounding. DuckDB adds doubles in the order its threads deliver them,
    so equal sums differ in the last digits: 1e-9 of the larger one is allowed. Null differs from a number. -#}
{% macro differ(left_figure, right_figure) -%}
    (
        {{ left_figure }} is distinct from {{ right_figure }}
        and coalesce(
            abs({{ left_figure }} - {{ right_figure }})
            > 1e-9 * greatest(abs({{ left_figure }}), abs({{ right_figure }})),
            true
        )
    )
{%- endmacro %}
