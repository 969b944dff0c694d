"""The tables of recovery, declared once: what is to be drilled, what each drill found, what is kept a second time."""

from __future__ import annotations

import pyarrow as pa

from greenops_pipelines.lake.schema import TIMESTAMP, Column, Kind, Table

_text = pa.string()
_float = pa.float64()
_int = pa.int64()
_bool = pa.bool_()

GAMEDAYS = Table(
    layer="bronze",
    name="gamedays",
    comment="Databases as declared in ops/gamedays.yaml: where they fail over to, and the objectives they are held against.",
    columns=(
        Column("database", _text, "Name of the database"),
        Column("primary_region", _text, "Region that serves it"),
        Column("standby_region", _text, "Region with its second copy"),
        Column("tenants", _text, "Whose data it holds, separated by commas"),
        Column("bound_to", _text, "Area that its tenants are bound to; null: none is", nullable=True),
        Column("is_embedded", _bool, "Whether two servers of our own stand in for it"),
        Column("wan_ms", _float, "Round trip between the two regions, ms"),
        Column("rto_objective_s", _float, "Recovery time objective, seconds"),
        Column("rpo_objective_s", _float, "Recovery point objective, seconds"),
    ),
    unique=("database",),
)

RECOVERY_DRILLS = Table(
    layer="bronze",
    name="recovery_drills",
    comment="Every drill of a failover or a restore, good, failed or aborted, with what it measured and its evidence.",
    columns=(
        Column("drill", _text, "Identifier of the drill: its beginning and a number"),
        Column("gameday", _text, "Month it was held for, 2026-11, or: ad hoc"),
        Column("database", _text, "What was drilled"),
        Column("primary_region", _text, "Region that failed"),
        Column("standby_region", _text, "Region that took over"),
        Column("scenario", _text, "kill, hang, partition, stall, planned, corrupt-standby, restore"),
        Column("is_sync", _bool, "Whether the standby was synchronous"),
        Column("is_negative_control", _bool, "Whether it had to miss its RPO; no part of any distribution"),
        Column("is_embedded", _bool, "Whether two servers of our own were drilled, and not the operator's"),
        Column("rate_per_s", _float, "Writes a second that were asked for", nullable=True),
        Column("throughput_per_s", _float, "Writes a second acknowledged before the fault", nullable=True),
        Column("wan_ms", _float, "Round trip between the regions, ms", nullable=True),
        Column("verdict", _text, "passed, failed, aborted; refused, missed (as intended); not missed"),
        Column("deficiencies", _text, "What was not as it should be, one line each; null: nothing", nullable=True),
        Column("rto_s", _float, "Fault to first write acknowledged by the other region, s", nullable=True),
        Column("rpo_s", _float, "Last acknowledged write minus last survivor, s; null: unknown", nullable=True),
        Column(
            "client_outage_s",
            _float,
            "Last write acknowledged by the failed region to the first one by the other, s",
            nullable=True,
        ),
        Column("detection_s", _float, "Fault to the decision to fail over, s", nullable=True),
        Column("failback_s", _float, "Beginning of the failback to the first write at home, s", nullable=True),
        Column("lost_writes", _int, "Acknowledged writes that are gone", nullable=True),
        Column("in_doubt_writes", _int, "Writes sent, with no word of what became of them", nullable=True),
        Column("failed_writes", _int, "Writes that were surely not kept", nullable=True),
        Column("acked_writes", _int, "Writes acknowledged, by whichever region", nullable=True),
        Column("rto_objective_s", _float, "Recovery time objective it was held against, s"),
        Column("rpo_objective_s", _float, "Recovery point objective it was held against, s"),
        Column("health_checks", _int, "Health checks that were made and passed before the fault"),
        Column("bundle", _text, "Identifier of its evidence; null: not filed yet", nullable=True),
        Column("began_at", TIMESTAMP, "When it began, by this host's clock"),
        Column("ended_at", TIMESTAMP, "When it ended"),
    ),
    unique=("drill",),
    partition_by=("drill",),
)

RECOVERY_STEPS = Table(
    layer="bronze",
    name="recovery_steps",
    comment="The steps of every drill, in order, with the time each took and the commands that ran in it.",
    columns=(
        Column("drill", _text, "Identifier of the drill"),
        Column("position", _int, "1, 2, ..."),
        Column("step", _text, "Name of the step"),
        Column("seconds", _float, "How long it took; null: it was under way when the drill ended", nullable=True),
        Column("outcome", _text, "done, or what went wrong"),
        Column(
            "commands", _text, "What ran, as an operator would type it, one line each; null: nothing", nullable=True
        ),
    ),
    unique=("drill", "position"),
    partition_by=("drill",),
)

RECOVERY_COPIES = Table(
    layer="bronze",
    name="recovery_copies",
    comment="Every second copy of the platform's own state that was taken: lake, evidence, Dagster's storage.",
    columns=(
        Column("snapshot", _text, "Identifier of the copy"),
        Column("home_region", _text, "Region it is a copy of"),
        Column("region", _text, "Region it lies in; null: in the home itself, which is no second place", nullable=True),
        Column("part", _text, "lake, evidence, dagster, ..."),
        Column("files", _int, "Files in it"),
        Column("bytes", _int, "Their size"),
        Column("bytes_new", _int, "Of the whole copy, in each of its rows: what had to be written anew"),
        Column("taken_at", TIMESTAMP, "As of when it is"),
        Column("seconds", _float, "How long the whole copy took"),
    ),
    unique=("snapshot", "part"),
    kind=Kind.LOG,
)

RECOVERY_TABLES = (GAMEDAYS, RECOVERY_DRILLS, RECOVERY_STEPS, RECOVERY_COPIES)
