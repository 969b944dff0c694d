"""What the words of FOCUS' rules mean for one file: their conditions and checks as SQL over its columns.

Cheap by design, because hundreds of checks are asked of every row: a number that is digits with a point, a time as FOCUS prints
it and text without a replacement character are seen as such once, and asked nothing further; what follows from columns of few
values is not asked per row at all. Not here: the rules (`rules.py`), the scans (`validate.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from greenops_pipelines.cost.columns import focus_columns
from greenops_pipelines.cost.rules import Rule
from greenops_pipelines.lake.catalog import identifier, quoted

# Numbers are compared as doubles, to a millionth and a billionth of the currency: providers print nine to eleven decimals.
TOLERANCE = "1e-9 + 1e-6"

_STRING = re.compile(r"('(?:[^']|'')*')")
_CALL = re.compile(r"\b([a-z_0-9]+)\(([A-Za-z_]+(?:, [A-Za-z_]+)*)\)")
_NULL_TEST = re.compile(r"\b([A-Z][A-Za-z]+) is (not )?null")
_NAME = re.compile(r'(?<![\w":])([A-Z][A-Za-z]+)(?![\w":])')

# What a column says about its maker: rules that bind those who support something are asked where a file shows that it is.
_SIGNS: Mapping[str, tuple[str, ...]] = {
    "COMMITMENT_DISCOUNT_SUPPORTED": ("CommitmentDiscount*",),
    "SUB_ACCOUNT_SUPPORTED": ("SubAccount*",),
    "CAPACITY_RESERVATION_SUPPORTED": ("CapacityReservation*",),
    "PUBLIC_PRICE_LIST_SUPPORTED": ("ListUnitPrice",),
    "NEGOTIATED_PRICING_SUPPORTED": ("ContractedUnitPrice",),
    "UNIT_PRICING_SUPPORTED": ("ListUnitPrice", "ContractedUnitPrice", "SkuPriceId", "SkuId"),
    "REGION_SUPPORTED": ("RegionId", "RegionName"),
    "TAGGING_SUPPORTED": ("Tags",),
    "USAGE_MEASUREMENT_SUPPORTED": ("ConsumedQuantity", "ConsumedUnit"),
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED": ("ResourceId", "ResourceName"),
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED": ("ResourceType",),
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED": ("PricingCurrency*",),
    "VIRTUAL_CURRENCY_SUPPORTED": ("PricingCurrencyContractedUnitPrice", "PricingCurrencyListUnitPrice"),
    "AVAILABILITY_ZONE_SUPPORTED": ("AvailabilityZone",),
    "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED": ("BillingAccountType",),
    "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED": ("SubAccountType",),
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED": ("PricingCategory",),
    "ACCOUNT_NAMING_SUPPORTED": ("BillingAccountName",),
    "SPLIT_COST_ALLOCATION_SUPPORTED": ("Allocated*",),
    "CONTRACT_COMMITMENT_SUPPORTED": ("ContractApplied",),
    "PAYABLE_INVOICES_SUPPORTED": ("InvoiceDetailId",),
}

CATEGORIES = (
    "ChargeCategory", "ChargeClass", "ChargeFrequency", "PricingCategory", "CommitmentDiscountStatus", "CommitmentDiscountCategory",
    "CapacityReservationStatus", "ServiceCategory", "ServiceSubcategory", "BillingCurrency", "PricingCurrency", "ProviderName",
    "InvoiceIssuerName", "PricingUnit", "ConsumedUnit", "CommitmentDiscountUnit", "BillingAccountType", "SubAccountType", "ResourceType",
    "CommitmentDiscountType",
)  # fmt: skip
"""Columns of few values. What speaks of them and of nulls alone is asked once per combination, not once per row."""

KEYED = ("Tags", "SkuPriceDetails", "AllocatedTags")
"""Columns of which the list of keys is looked at."""

# ISO 4217, active codes (SIX, list one of 2024).
CURRENCIES = tuple(
    """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY
    COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR
    IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR
    MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD
    SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD
    XOF XPF YER ZAR ZMW ZWG""".split()  # noqa: SIM905
)

# Terms of the attribute Unit Format, as it spells them.
_UNITS = tuple(
    """b B Kb KB Mb MB Gb GB Tb TB Pb PB Eb EB KiB MiB GiB TiB PiB EiB Second Seconds Minute Minutes Hour Hours Day Days Month Months
    Year Years Request Requests Token Tokens Count Unit Units Query Queries Core Cores Node Nodes Transaction Transactions""".split()  # noqa: SIM905
)
_PLACEHOLDERS = ("", "NULL", "null", "None", "N/A", "n/a", "NaN", "Not Applicable", "not applicable", "-")

# The properties that FOCUS defines for SkuPriceDetails, and the type of their values.
_SKU_NUMBERS = (
    "CoreCount",
    "DiskMaxIops",
    "DiskSpace",
    "GpuCount",
    "MemorySize",
    "NetworkMaxIops",
    "NetworkMaxThroughput",
)
_SKU_TEXTS = ("DiskType", "InstanceType", "InstanceSeries", "OperatingSystem", "Redundancy", "StorageClass")
_SKU = (*_SKU_NUMBERS, *_SKU_TEXTS)


class Vocabulary:
    """The columns of one file, and what the words of the rules mean for them.

    `types` are the file's columns with DuckDB's type; of a CSV file (`is_text`) every column is text, and types are those of
    the values. A column that is absent is null in conditions.
    """

    def __init__(self, types: Mapping[str, str], is_text: bool) -> None:
        self._is_text = is_text
        self._types = types
        self._declared = focus_columns()
        self.given = tuple(types)
        self.present = tuple(name for name in types if name in self._declared)

    def shows(self, criterion: str) -> bool:
        """Whether the file's columns show that its maker supports what the criterion names."""
        return any(
            name.startswith(sign[:-1]) if sign.endswith("*") else name == sign
            for sign in _SIGNS[criterion]
            for name in self.present
        )

    def source(self, *, is_numbered: bool = False) -> str:
        """SQL for the rows: every column of FOCUS as text, numbers as `n:<name>` and times as `t:<name>`; `is_numbered` adds `#row`."""
        columns = ['"#row"'] if is_numbered else []
        for name, column in self._declared.items():
            found = self._found(name)
            if found is None:
                columns.append(f"null::varchar as {identifier(name)}")
            else:
                columns.append(f"{self._as_text(name, found)} as {identifier(name)}")
                columns.append(f"{identifier(found)} is null as {identifier(f'null:{name}')}")
            if name in KEYED:
                keys = "null::varchar" if found is None else _keys(self._as_text(name, found))
                columns.append(f"{keys} as {identifier(f'keys:{name}')}")
            if column.type == "decimal":
                columns.append(f"{self._as_number(found)} as {identifier(f'n:{name}')}")
                columns.append(f"{self._is_plain(name, found)} as {identifier(f'plain:{name}')}")
            if column.type == "time":
                columns.append(f"{self._is_plain(name, found)} as {identifier(f'plain:{name}')}")
                time = "null" if found is None else f"try_cast({identifier(found)} as timestamptz)"
                columns.append(f"{time}::timestamptz as {identifier(f't:{name}')}")
        texts = [f"({x} is null or not contains({x}, '\ufffd'))" for x in map(identifier, self._sets()["texts"])]
        plain = [f"{' and '.join(texts) or 'true'} as {identifier('plain:texts')}"]
        plain += [
            " and ".join(identifier(f"plain:{name}") for name in self._sets()[group])
            + f" as {identifier(f'plain:{group}')}"
            for group in ("numbers", "times")
            if self._sets()[group]
        ]
        return f"select {', '.join(['*', *plain])} from (select {', '.join(columns)} from {'numbered' if is_numbered else 'file'})"

    def _is_plain(self, name: str, found: str | None) -> str:
        """Whether a number is digits with a point, a time as FOCUS prints it: of those no further question is asked."""
        if found is None or self._types[found] != "VARCHAR":
            return "true"
        x = identifier(found)
        if self._declared[name].type == "decimal":
            return f"({x} is null or regexp_full_match({x}, '-?[0-9]+([.][0-9]+)?'))"
        return f"({x} is null or (strlen({x}) = 20 and {x}[11] = 'T' and {x}[20] = 'Z' and try_cast({x} as timestamptz) is not null))"

    def columns(self, expression: str) -> list[str]:
        """The columns of FOCUS that an expression speaks of, those of `every(...)` included where the file has them."""
        found = dict.fromkeys(_NAME.findall(_STRING.sub("", expression)))
        for _, arguments in _CALL.findall(expression):
            words = arguments.split(", ")
            if len(words) == 2 and words[1] in self._sets():
                found.update(dict.fromkeys(self._sets()[words[1]]))
        return [name for name in found if name in self._declared]

    def is_answerable(self, rule: Rule) -> bool:
        """Whether the file has every column that the check of a rule speaks of, and the one that the rule is about."""
        about = rule.id.removeprefix("CAU-").removeprefix("x-").split("-")[0]
        if about in self._declared and self._found(about) is None:
            return False
        named = self.columns(rule.check)
        return all(self._found(name) is not None for name in named) and bool(named)

    def sql(self, expression: str) -> str:
        """An expression of the rules as SQL over `source`."""

        def call(match: re.Match[str]) -> str:
            function, arguments = match[1], match[2].split(", ")
            if function == "every":
                return self._every(arguments[0], self._sets()[arguments[1]])
            if function == "matches":
                price, quantity, cost = (identifier(f"n:{name}") for name in arguments)
                return f"(abs({price} * {quantity} - {cost}) <= {TOLERANCE} * abs({cost}))"
            if function == "third_party":
                return _third_party(*map(identifier, arguments))
            is_ours = function in _CHECKS or function in _TYPED
            return self._call(function, arguments[0]) if is_ours and arguments[0] in self._declared else match[0]

        parts = _STRING.split(expression)
        # Literals stand at the odd places: no name in them is a column.
        text = "".join(part if n % 2 else _CALL.sub(call, part) for n, part in enumerate(parts))
        parts = _STRING.split(text)
        return _equal(
            "".join(part if n % 2 else _NAME.sub(lambda m: identifier(m[1]), part) for n, part in enumerate(parts))
        )

    def is_simple(self, expression: str) -> bool:
        """Whether an expression follows from the columns of few values, from lists of keys and from what is null."""
        bare = _NULL_TEST.sub("", _STRING.sub("", expression))
        names = {name for name in _NAME.findall(bare) if name in self._declared}
        for function, arguments in _CALL.findall(bare):
            if function == "every":
                return False
            if function in _KEY_CHECKS:
                names -= set(arguments.split(", "))
            elif function in _OF_VALUES:
                return False
        return names <= set(CATEGORIES)

    def split_every(self, expression: str) -> tuple[str, str] | None:
        """Of "every(check, group)": the part about columns of few values, and the rest; None for anything else."""
        match = _CALL.fullmatch(expression)
        if match is None or match[1] != "every":
            return None
        function, group = match[2].split(", ")
        names = self._sets()[group]
        few = [name for name in names if name in CATEGORIES or function in _KEY_CHECKS]
        rest = [name for name in names if name not in few]
        return self._every(function, few), self._every(function, rest)

    def over_profile(self, expression: str) -> str:
        """A simple expression as SQL over combinations, which hold what is null as `null:<name>`."""
        parts = _STRING.split(expression)

        def test(match: re.Match[str]) -> str:
            return f"{'not ' if match[2] else ''}{identifier(f'null:{match[1]}')}"

        return self.sql("".join(part if n % 2 else _NULL_TEST.sub(test, part) for n, part in enumerate(parts)))

    def _found(self, name: str) -> str | None:
        """The file's column that stands for a column of FOCUS: its own, or the one of the other generation."""
        if name in self._types:
            return name
        other = {"ProviderName": "ServiceProviderName", "PublisherName": "HostProviderName"}.get(name)
        return other if other in self._types else None

    def _as_text(self, name: str, found: str) -> str:
        kind = self._types[found]
        if kind == "VARCHAR":
            return identifier(found)
        if kind.startswith(("MAP", "STRUCT", "JSON")):
            return f"to_json({identifier(found)})::varchar"
        return f"{identifier(found)}::varchar"

    def _as_number(self, found: str | None) -> str:
        if found is None:
            return "null::double"
        if self._types[found] in ("VARCHAR", "DOUBLE", "FLOAT"):
            # Neither NaN nor infinity is a value of money or of a quantity.
            return f"(select_finite(try_cast({identifier(found)} as double)))"
        return f"try_cast({identifier(found)} as double)"

    def _sets(self) -> Mapping[str, Sequence[str]]:
        of = {
            kind: [n for n in self.present if self._declared[n].type == kind]
            for kind in ("text", "decimal", "time", "json")
        }
        return {
            "texts": of["text"],
            "numbers": of["decimal"],
            "times": of["time"],
            "maps": [name for name in of["json"] if name in KEYED],
            "units": [name for name in of["text"] if self._declared[name].format == "unit"],
            "nullables": [name for name in self.present if self._declared[name].nullable],
        }

    def _every(self, function: str, names: Sequence[str]) -> str:
        checks = [check for name in names if (check := self._call(function, name)) != "true"]
        if not checks:
            return "true"
        detailed = " and ".join(checks)
        if function == "is_unicode" and not set(names) <= set(CATEGORIES):
            return identifier("plain:texts")
        kinds = {self._declared[name].type for name in names}
        if function in _CHECKS and kinds in ({"decimal"}, {"time"}):
            return f"case when {identifier('plain:numbers' if kinds == {'decimal'} else 'plain:times')} then true else {detailed} end"
        return f"({detailed})"

    def _call(self, function: str, name: str) -> str:
        found = self._found(name)
        kind = "VARCHAR" if self._is_text or found is None else self._types[found]
        if function == "is_json_object" and name in KEYED:
            return f"({identifier(name)} is null or {identifier(f'keys:{name}')} is not null)"
        if function in _KEY_CHECKS:
            keys = identifier(f"keys:{name}")
            return f"({keys} is null or {_KEY_CHECKS[function](keys)})"
        if function in _FLAT and name in KEYED:
            keys, x = identifier(f"keys:{name}"), identifier(name)
            return f"({x} is null or case when {keys} is null then {'false' if function == 'fmt_key_value' else 'true'} else {_flat(x)} end)"
        if function == "num":
            return identifier(f"n:{name}")
        if function == "at":
            return identifier(f"t:{name}")
        if function == "is_text":
            return "true" if kind == "VARCHAR" else "false"
        if function == "is_decimal":
            if self._is_text or found is None:
                return f"({identifier(name)} is null or {identifier(f'n:{name}')} is not null)"
            return "true" if _is_numeric(kind) else "false"
        if function == "is_time":
            if self._is_text or found is None:
                return f"({identifier(name)} is null or {identifier(f't:{name}')} is not null)"
            return "true" if kind.startswith("TIMESTAMP") else "false"
        if kind != "VARCHAR" and (_is_numeric(kind) or kind.startswith("TIMESTAMP")):
            # A typed column of a Parquet file has no notation to break.
            return "true"
        x = identifier(name)
        if function == "is_single_number":
            return f"({x} is null or {identifier(f'n:{name}')} is not null or regexp_full_match({x}, '\\s*\\S+\\s*'))"
        if function == "is_bound":
            at = identifier(f"t:{name}")
            return f"(second({at}) < 59)"
        if function == "fmt_text" and name not in CATEGORIES:
            return f"case when {identifier('plain:texts')} then true else {x} is null or {_CHECKS[function](x)} end"
        if function in ("fmt_number", "fmt_time"):
            return f"case when {identifier(f'plain:{name}')} then true else {_CHECKS[function](x)} end"
        return f"({x} is null or {_CHECKS[function](x)})"


def _equal(sql: str) -> str:
    """`equal(a, b)` written out; its arguments hold brackets, so that they are counted."""
    while (begin := sql.find("equal(")) >= 0:
        depth, comma = 0, -1
        for place in range(begin + 5, len(sql)):
            depth += {"(": 1, ")": -1}.get(sql[place], 0)
            if sql[place] == "," and depth == 1 and comma < 0:
                comma = place
            if depth == 0:
                break
        left, right = sql[begin + 6 : comma], sql[comma + 1 : place]
        sql = f"{sql[:begin]}(abs(({left}) - ({right})) <= {TOLERANCE} * abs({right})){sql[place + 1 :]}"
    return sql


def _is_numeric(kind: str) -> bool:
    return kind.startswith(
        ("DECIMAL", "DOUBLE", "FLOAT", "BIGINT", "INTEGER", "HUGEINT", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER")
    )


def _third_party(provider: str, issuer: str) -> str:
    """Whether somebody else than the provider receives the payment. A company's short and legal names are one party."""
    return (
        f"({provider} is distinct from {issuer} and not starts_with({issuer}, {provider}) "
        f"and not ({provider} = 'AWS' and starts_with({issuer}, 'Amazon')) "
        f"and not ({provider} in ('GCP', 'Google Cloud') and starts_with({issuer}, 'Google')) "
        f"and not ({provider} in ('Azure', 'Microsoft Azure') and starts_with({issuer}, 'Microsoft')))"
    )


def _listed(values: Sequence[str]) -> str:
    return "(" + ", ".join(map(quoted, values)) + ")"


def _object(x: str) -> str:
    return f"case when json_valid({x}) then json_type({x}) = 'OBJECT' else false end"


def _keys(x: str) -> str:
    """An object's keys as DuckDB prints a list; null for what is no object."""
    return f"case when {_object(x)} then json_keys({x})::varchar end"


def _flat(x: str) -> str:
    """No object and no list among the values; asked in full only where a bracket follows a colon."""
    types = f"list_transform(json_keys({x}), lambda k: json_type(json_extract({x}, '$.\"' || k || '\"')))"
    return f"case when not regexp_matches({x}, ':\\s*[{{\\[]') then true else not list_has_any({types}, ['OBJECT', 'ARRAY']) end"


def _units_with_case(x: str) -> str:
    known = "|".join(_UNITS)
    # A word of the list in any other case breaks it; bits and bytes differ by nothing else, so they are left out.
    folded = "|".join(sorted({u.lower() for u in _UNITS if len(u) > 2}))
    return (
        f"(not regexp_matches({x}, '(?i)(^|[ /-])({folded})($|[ /-])') "
        f"or regexp_matches({x}, '(^|[ /-])({known})($|[ /-])'))"
    )


_FLAT = ("fmt_key_value", "has_plain_values", "has_no_nesting")
_OF_VALUES = ("num", "at", "is_decimal", "is_time", "is_single_number", "is_bound", "matches", "equal")
_KEY_NAMES = ("has_unique_keys", "has_sku_keys", "has_sku_case")
_TYPED = ("num", "at", "is_text", "is_decimal", "is_time", "is_single_number", "is_bound", *_FLAT, *_KEY_NAMES)
_LOWER_SKU = _listed([key.lower() for key in _SKU])
_NUMBER = r"-?(\d+(\.\d*)?|\.\d+)([eE]-?\d+)?"
_DATE_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"

_CHECKS: Mapping[str, Callable[[str], str]] = {
    # Formats of the model.
    "fmt_text": lambda x: f"not contains({x}, '\ufffd')",
    "fmt_number": lambda x: f"regexp_full_match({x}, '{_NUMBER}')",
    "fmt_time": lambda x: f"regexp_full_match({x}, '{_DATE_TIME}') and try_cast({x} as timestamptz) is not null",
    "fmt_unit": _units_with_case,
    "fmt_currency": lambda x: f"regexp_full_match({x}, '[A-Z]{{3}}') or not regexp_full_match({x}, '(?i)[a-z]{{3}}')",
    "is_national_currency": lambda x: f"{x} in {_listed(CURRENCIES)}",
    # DateTimeFormat.
    "is_utc": lambda x: f"ends_with({x}, 'Z') or ends_with({x}, '+00:00')",
    "is_iso": lambda x: f"try_cast({x} as timestamptz) is not null and {x}[5] = '-' and {x}[11] in ('T', 't')",
    "has_t": lambda x: f"{x}[11] = 'T'",
    "has_two_digits": lambda x: f"regexp_matches({x}, '[T ]\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]|$)')",
    "ends_with_z": lambda x: f"ends_with({x}, 'Z')",
    # NumericFormat.
    "is_number": lambda x: f"regexp_full_match({x}, '[+-]?(\\d+(\\.\\d*)?|\\.\\d+)([eE][+-]?\\d+)?')",
    "has_no_fraction": lambda x: f"not contains({x}, '/')",
    "has_plain_exponent": lambda x: f"not regexp_matches({x}, '(?i)\\d\\s*[x×*]\\s*10|\\d[eE]-?\\d*\\.|\\d[eE]$|\\^')",
    "has_no_plus_exponent": lambda x: f"not regexp_matches({x}, '[eE]\\+')",
    "has_no_operator": lambda x: f"not regexp_matches({x}, '[*/^=()<>]|\\d\\s*[+]|\\d\\s*-|sqrt|sum')",
    "has_no_qualifier": lambda x: f"not regexp_matches({x}, '[^0-9eE+.,*/^=()<> -]')",
    "has_no_comma": lambda x: f"not regexp_matches({x}, '[,;:_]') and length({x}) - length(replace({x}, '.', '')) <= 1",
    "has_no_plus": lambda x: f"not starts_with({x}, '+')",
    "has_plain_minus": lambda x: f"not regexp_matches({x}, '[−–—]|^\\(.*\\)$|-$')",
    # StringHandling, NullHandling, UnitFormat.
    "is_unicode": lambda x: f"not contains({x}, '\ufffd')",
    "is_not_empty": lambda x: f"{x} <> ''",
    "is_no_placeholder": lambda x: f"{x} not in {_listed(_PLACEHOLDERS)}",
    "has_unit_case": _units_with_case,
    # KeyValueFormat, Tags, SkuPriceDetails. What is no object is the first rule's matter, not that of the others.
    "is_json_object": _object,
    "has_tag_values": lambda x: f"not regexp_matches({x}, ':\\s*(\"\"|null)\\s*[,}}]')",
    "has_sku_types": lambda x: (
        f"not regexp_matches({x}, '[{{,]\\s*\"({'|'.join(_SKU_NUMBERS)})\"\\s*:\\s*[^-0-9 ]') "
        f'and not regexp_matches({x}, \'[{{,]\\s*"({"|".join(_SKU_TEXTS)})"\\s*:\\s*[^" ]\')'
    ),
}

# Of lists of keys, which are few: asked once per combination.
_KEY_CHECKS: Mapping[str, Callable[[str], str]] = {
    "has_unique_keys": lambda k: f"len({k}::varchar[]) = len(list_distinct({k}::varchar[]))",
    "has_sku_keys": lambda k: (
        f"list_bool_and([starts_with(k, 'x_') or lower(k) in {_LOWER_SKU} for k in {k}::varchar[]]) is distinct from false"
    ),
    "has_sku_case": lambda k: (
        f"list_bool_and([lower(k) not in {_LOWER_SKU} or k in {_listed(_SKU)} for k in {k}::varchar[]]) is distinct from false"
    ),
}
