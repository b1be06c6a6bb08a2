"""The journal's statements on PostgreSQL, as text, with their values by name.

Each step is one statement, made from the table of steps once, when this module is imported: it asks for the key, the
state and the holder that the step needs, and makes the change at the same time. One statement is one transaction and
one round trip; what belongs to a step beside its row (a result, other bytes, what goes to the past) is in the same
statement.

`~` stands for the schema, `:name` for a value. This module knows nothing of connections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from aiopplx.journal._postgres.account import lock_of
from aiopplx.journal._postgres.room import Value
from aiopplx.journal._postgres.schema import MONEY, qualified
from aiopplx.journal._records import State
from aiopplx.journal._steps import ENDINGS, RULES, SENDING, Kind, Put, Rule
from aiopplx.journal._taking import assignments
from aiopplx.journal.store import BILLED, DELIVERABLE, OVER, REUSABLE, RUNNING

_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("pk", "me", "fence", "place", "size", "after", "limit", "samples"), "bigint"),
    **dict.fromkeys(("attempts", "pid"), "integer"),
    "enc": "smallint",
    **dict.fromkeys(("cost", "now", "lease", "dollars", "seconds"), "float8"),
    **dict.fromkeys(("sha", "body", "packed", "meta", "value"), "bytea"),
    "pks": "bigint[]",
    **dict.fromkeys(("keys", "said"), "text[]"),
    "states": "smallint[]",
    **dict.fromkeys(("is_kept", "again"), "boolean"),
}
"""The types of values that are not text."""

_VALUE = re.compile(r"(?<!:):([a-z_]+)")

_CLOCK = "extract(epoch FROM statement_timestamp())::float8"
"""Seconds since 1970 by the server, the only clock of a shared journal: one moment for all that a statement writes."""


class Statement(msgspec.Struct, frozen=True):
    """A text with numbered values, and their names in that order."""

    text: str
    names: tuple[str, ...]

    def values(self, given: Mapping[str, Value]) -> list[Value]:
        """The values in the order of the text."""
        return [given[name] for name in self.names]


def statement(text: str, schema: str) -> Statement:
    """A statement of this module for one schema."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}::{_TYPES.get(name, 'text')}"

    return Statement(_VALUE.sub(number, qualified(text, schema)), tuple(names))


def _among(states: frozenset[State]) -> str:
    return f"IN ({', '.join(str(int(state)) for state in sorted(states))})"


NOW = f"coalesce(:now, {_CLOCK})"
"""The moment of a change. `now` is None but in tests, whose clock stands where they put it."""
FINAL = _among(DELIVERABLE)

# A final row has no holder: every session has its claim, until one of them starts it anew.
LIVE = f"(fence = :fence AND (owner = :me OR owner IS NULL AND state {FINAL}))"
_FREE = "(owner IS NULL OR owner = :me)"
# A session that has lost its lease is still the last that held the row until another one claims it.
_HOLDER: Mapping[Kind, str] = {
    Kind.INTENT: LIVE,
    Kind.DENIAL: f"(fence = :fence AND {_FREE})",
    Kind.FACT: "true",
}

# --- one statement for each step -------------------------------------------------------------------------------------


def _where(rule: Rule) -> str:
    where = f"pk = :pk AND key IS NOT DISTINCT FROM nullif(:key, '') AND state {_among(rule.origins)}"
    where += f" AND {_HOLDER[rule.kind]}"
    if rule is SENDING:  # a mark is not made twice, unless it was taken back
        where += f" AND (attempts < :attempts OR attempts = :attempts AND state = {int(State.QUEUED)})"
        # It may have been queued at the moment at which the row that had its key went to the past.
        where += " AND NOT EXISTS (SELECT FROM ~.past WHERE past.key = job.key)"
    if Put.NEW_KEY in rule.columns.values():  # a key that was used before, by this row or by another one
        where += " AND key IS DISTINCT FROM :new_key AND NOT EXISTS (SELECT FROM ~.past WHERE past.key = :new_key)"
    return where


_PAST = "pk, tag, key, job_id, api, kind, state, word, error, cost, updated, tenant"
# The bill of what goes to the past may never become known: it counts as what was held back for it.
_BILLED = "CASE WHEN attempts > 0 THEN hold ELSE 0 END"


def _to_the_past(which: str = "true") -> str:
    return f"past AS (INSERT INTO ~.past({_PAST}, hold) SELECT {_PAST}, {_BILLED} FROM old WHERE {which})"


# No sum falls below nothing by a rounding error.
_BILL = f"""bill AS (
    UPDATE ~.account SET held = greatest(0, account.held - gone.held), spent = spent + gone.billed
    FROM (SELECT sum(hold) AS held, sum({_BILLED}) AS billed FROM old WHERE hold > 0) AS gone
    WHERE name = '{MONEY}' AND gone.held > 0)"""
_MONEY = f"""money AS (
    UPDATE ~.account SET held = greatest(0, held - before.hold + done.hold), spent = spent + coalesce(:cost, 0)
    FROM before, done WHERE name = '{MONEY}')"""
_NO_RESULT = "gone AS (DELETE FROM ~.result USING old WHERE result.pk = old.pk)"


def _step(rule: Rule) -> str:
    owner = "NULL" if rule.leads_to in DELIVERABLE else f"CASE WHEN {LIVE} THEN :me ELSE owner END"
    put = assignments(rule, NOW)
    change = ", ".join([f"state = {int(rule.leads_to)}", f"owner = {owner}", "touched = :me", f"updated = {NOW}", *put])
    where = _where(rule)
    parts: list[str] = []
    is_end = rule in ENDINGS.values()
    if is_end:  # what was held back is let go, unless there is a bill of unknown amount
        change += ", hold = CASE WHEN :cost IS NULL THEN hold ELSE 0 END" if rule.leads_to in BILLED else ", hold = 0"
        # The row is locked first, and the sums after it, as by all who change both.
        parts = [f"before AS (SELECT pk, hold FROM ~.job WHERE {where} FOR UPDATE)"]
        where += " AND pk IN (SELECT pk FROM before)"
    if rule.starts_over:
        # The row is locked first: what goes to the past is then what the change finds.
        parts = [f"old AS (SELECT * FROM ~.job WHERE {where} FOR UPDATE)", _to_the_past(), _NO_RESULT, _BILL]
        change += ", hold = 0"
        where += " AND pk IN (SELECT pk FROM old)"
    parts.append(f"done AS (UPDATE ~.job SET {change} WHERE {where} RETURNING pk, hold)")
    if "body" in rule.columns:
        parts.append("bytes AS (UPDATE ~.request SET body = :body FROM done WHERE request.pk = done.pk)")
    if is_end:
        parts.append(_MONEY)
        parts.append(
            "kept AS (INSERT INTO ~.result(pk, enc, size, body)"
            " SELECT pk, :enc, :size, :packed FROM done WHERE :is_kept"
            " ON CONFLICT (pk) DO UPDATE SET enc = excluded.enc, size = excluded.size, body = excluded.body)"
        )
    return f"WITH {', '.join(parts)} SELECT pk FROM done"


STEPS: Mapping[Rule, str] = {rule: _step(rule) for rule in RULES}
"""The statement of each step. It returns the row if it was changed, and nothing otherwise."""

# --- records ---------------------------------------------------------------------------------------------------------

_RECORD = f"""
    SELECT j.pk, j.item, j.tag, j.key, r.body, j.sha, j.api, j.kind, j.state, j.attempts, j.first_sent, j.job_id,
        j.accepted_at, j.ended_at, j.word, j.error, j.cost, j.delivered, j.updated, j.owner, j.fence, j.touched,
        EXISTS (SELECT FROM ~.result x WHERE x.pk = j.pk) AS has_result, o.question, o.meta,
        CASE WHEN j.first_sent IS NOT NULL THEN greatest(0, {NOW} - j.first_sent) END AS age
    FROM j LEFT JOIN ~.request r ON r.pk = j.pk LEFT JOIN LATERAL (
        SELECT question, meta FROM ~.origin WHERE origin.pk = j.pk ORDER BY run DESC, place DESC LIMIT 1) o ON true
    ORDER BY j.pk"""


def _read(which: str) -> str:
    return f"WITH j AS (SELECT * FROM ~.job WHERE {which}){_RECORD}"


BY_PK, BY_ITEM, BY_JOB_ID, BY_KEY = (_read(f"{name} = :{name}") for name in ("pk", "item", "job_id", "key"))
BY_PKS = _read("pk = ANY(:pks)")
PAGE = _read("pk > :after AND state = ANY(:states) ORDER BY pk LIMIT :limit")
_NEWEST = "SELECT max(pk) FROM ~.job WHERE sha = :sha AND api = :api AND"
ALIKE = _read(
    f"""pk = ANY(ARRAY(
        SELECT pk FROM ~.job WHERE item = :item
        UNION ALL {_NEWEST} state {_among(REUSABLE)} UNION ALL {_NEWEST} starts_with(item, :beginning)))"""
)

# --- the right to write ----------------------------------------------------------------------------------------------

_TAKE = "owner = :me, fence = nextval('~.fence')"


def _claim(which: str, when: str = "true") -> str:
    """Claims a row, and reads it. A row that is free by the reading was taken by another session at this moment."""
    return f"""
    WITH mine AS (
        UPDATE ~.job SET {_TAKE} WHERE {which} AND {when} AND owner IS NULL AND NOT state {FINAL} RETURNING *),
    j AS (SELECT * FROM mine UNION ALL SELECT * FROM ~.job WHERE {which} AND NOT EXISTS (SELECT FROM mine)){_RECORD}"""


CLAIM, CLAIM_JOB = _claim("pk = :pk"), _claim("job_id = :job_id")
CLAIM_ITEM = _claim("item = :item", "sha IN (:sha, '')")
# `owner IS NULL` and nothing else. Asking the sessions as well would take rows that were taken a moment before: the
# row is looked at anew once it is locked, a table that is joined to it is not.
CLAIM_FREE = f"""
    WITH c AS (
        SELECT pk FROM ~.job WHERE state {_among(RUNNING)} AND owner IS NULL AND NOT pk = ANY(:pks)
        ORDER BY pk LIMIT :limit
        FOR UPDATE SKIP LOCKED),
    j AS (UPDATE ~.job SET {_TAKE} FROM c WHERE job.pk = c.pk RETURNING job.*){_RECORD}"""
HELD = f"SELECT pk, fence FROM ~.job WHERE owner = :me AND NOT state {FINAL} AND NOT pk = ANY(:pks)"
RELEASE = f"""
    UPDATE ~.job SET owner = NULL, fence = nextval('~.fence')
    WHERE pk = :pk AND owner = :me AND fence = :fence AND NOT state {FINAL} RETURNING pk"""
STANDS = f"""
    SELECT pk, state, fence, updated, owner IS NOT NULL AND owner <> :me AND NOT state {FINAL} AS is_held
    FROM ~.job WHERE pk = ANY(:pks)"""

# --- sessions --------------------------------------------------------------------------------------------------------

_UNTIL = "clock_timestamp() + make_interval(secs => :lease)"
# What a session must agree with before it enters.
STANDING = f"""
    SELECT k, v FROM ~.meta UNION ALL SELECT 'is_used', (
        EXISTS (SELECT FROM ~.job WHERE state NOT IN ({int(State.QUEUED)}, {int(State.REJECTED)}) OR job_id IS NOT NULL)
        OR EXISTS (SELECT FROM ~.past))::text
    UNION ALL SELECT 'is_open', EXISTS (SELECT FROM ~.worker WHERE until > clock_timestamp())::text"""
# One session after the other, each by what it has seen: of two that begin a journal, the second finds whose it is.
ENTERING = lock_of("~")
ENTER = f"""
    WITH standing AS (
        SELECT string_agg(k || '=' || v, ';' ORDER BY k COLLATE "C") = :seen AS is_as_seen FROM ({STANDING}) AS facts),
    put AS (
        INSERT INTO ~.meta(k, v) SELECT k, v FROM standing, unnest(:keys, :said) AS put(k, v) WHERE is_as_seen
        ON CONFLICT (k) DO UPDATE SET v = excluded.v)
    INSERT INTO ~.worker(host, pid, version, until)
    SELECT :host, :pid, :version, {_UNTIL} FROM standing WHERE is_as_seen RETURNING id"""
# Under the number that it has had from its opening on: what it asked for, and a source that it reads, stay its own.
# After a fail-over to a replica that had not heard of it, the number may be another session's: `version`, in which each
# one has a word of its own, tells them apart, and it takes another number.
ENTER_ANEW = f"""
    WITH mine AS (
        INSERT INTO ~.worker(id, host, pid, version, until) OVERRIDING SYSTEM VALUE
        VALUES (:me, :host, :pid, :version, {_UNTIL}) ON CONFLICT (id) DO UPDATE SET until = excluded.until
        WHERE worker.version = excluded.version RETURNING id),
    other AS (
        INSERT INTO ~.worker(host, pid, version, until) SELECT :host, :pid, :version, {_UNTIL}
        WHERE NOT EXISTS (SELECT FROM mine) RETURNING id)
    SELECT id FROM mine UNION ALL SELECT id FROM other"""
BEAT = f"UPDATE ~.worker SET until = {_UNTIL} WHERE id = :me AND version = :version RETURNING {_CLOCK} AS said"
LEAVE = "DELETE FROM ~.worker WHERE id = :me AND version = :version"
# No lease ends later than ten leases from now, unless the server's clock was set back: a dead session's would then last
# for as long as that. A living session sets its own with each beat.
_LAST = "clock_timestamp() + 10 * make_interval(secs => :lease)"
REAP = f"""
    WITH late AS (UPDATE ~.worker SET until = {_LAST} WHERE until > {_LAST}),
    dead AS (SELECT id FROM ~.worker WHERE until < clock_timestamp() FOR UPDATE SKIP LOCKED)
    DELETE FROM ~.worker USING dead WHERE worker.id = dead.id RETURNING worker.id"""
NOTIFY = "SELECT pg_notify(:channel, said) FROM unnest(:said) AS said"

# --- new rows --------------------------------------------------------------------------------------------------------

_BYTES = "bytes AS (INSERT INTO ~.request(pk, body) SELECT pk, :body FROM new)"
_COMES_FROM = """
    INSERT INTO ~.origin(run, place, pk, question, meta) {values} ON CONFLICT (run, place)
    DO UPDATE SET pk = excluded.pk, question = excluded.question, meta = excluded.meta"""
QUEUE = f"""
    WITH new AS (
        INSERT INTO ~.job(item, tag, key, sha, api, kind, state, owner, fence, touched, updated, run, place, tenant)
        SELECT :item, :tag, :key, :sha, :api, :kind, 0, :me, nextval('~.fence'), :me, {NOW}, :run, :place, :tenant
        WHERE NOT EXISTS (SELECT FROM ~.past WHERE past.key = :key)
        ON CONFLICT DO NOTHING RETURNING pk, fence, updated),
    {_BYTES},
    came AS ({
    _COMES_FROM.format(
        values="SELECT :run, CASE :run WHEN '' THEN pk ELSE :place END, pk, '', :meta FROM new WHERE :meta <> ''"
    )
})
    SELECT pk, fence, updated FROM new"""
ADOPT = f"""
    WITH new AS (
        INSERT INTO ~.job(item, tag, sha, api, kind, state, job_id, accepted_at, owner, fence, touched, updated)
        SELECT :item, :tag, '', :api, :kind, {int(State.ACCEPTED)}, :job_id, moment, :me, nextval('~.fence'), :me,
            moment
        FROM (SELECT {NOW} AS moment) AS at
        ON CONFLICT DO NOTHING RETURNING *),
    bytes AS (INSERT INTO ~.request(pk, body) SELECT pk, '' FROM new)
    SELECT pk FROM new"""
KEY_USER = """
    SELECT item FROM ~.job WHERE key = :key
    UNION ALL SELECT coalesce(job.item, '') FROM ~.past LEFT JOIN ~.job USING (pk) WHERE past.key = :key LIMIT 1"""
KEY_OF_THE_PAST = "SELECT key FROM ~.past WHERE key = :key"
TOUCH = "UPDATE ~.job SET touched = :me WHERE pk = :pk AND touched <> :me"
# Another request in the place of one that has no bill. The session that asked for that one last must be gone.
REPLACE = f"""
    WITH old AS (
        SELECT * FROM ~.job WHERE pk = :pk AND sha <> :sha AND state = ANY(:states) AND {_FREE}
            AND NOT (state = 0 AND first_sent IS NOT NULL)
            AND NOT EXISTS (SELECT FROM ~.worker WHERE worker.id = job.touched)
            AND NOT EXISTS (SELECT FROM ~.job other WHERE other.key = :key)
            AND NOT EXISTS (SELECT FROM ~.past WHERE past.key = :key)
        FOR UPDATE),
    {_to_the_past("attempts > 0")},
    {_NO_RESULT},
    {_BILL},
    bytes AS (UPDATE ~.request SET body = :body FROM old WHERE request.pk = old.pk)
    UPDATE ~.job SET state = 0, key = :key, api = :api, kind = :kind, sha = :sha, job_id = NULL, first_sent = NULL,
        accepted_at = NULL, ended_at = NULL, word = '', error = '', cost = NULL, hold = 0, delivered = false,
        touched = :me, updated = {NOW}, {_TAKE}
    FROM old WHERE job.pk = old.pk RETURNING job.pk"""

# --- where a row comes from ------------------------------------------------------------------------------------------

_ALONE = "NOT EXISTS (SELECT FROM ~.origin WHERE origin.pk = job.pk)"
# One that is over may be removed at any moment, and is not while it is locked.
COMES_FROM = _COMES_FROM.format(
    values="SELECT :run, :place, pk, :question, :meta FROM (SELECT pk FROM ~.job WHERE pk = :pk FOR KEY SHARE) AS there"
)
STANDS_AT = f"UPDATE ~.job SET run = :run, place = :place WHERE pk = :pk AND run <> :run AND {_ALONE} RETURNING pk"
# A second row of this run asks for the same job, so the place of the first is written where there can be several.
STOOD_AT = f"""
    INSERT INTO ~.origin(run, place, pk, question, meta)
    SELECT run, place, pk, '', '' FROM ~.job WHERE pk = :pk AND run = :run AND place <> :place AND {_ALONE}
    ON CONFLICT DO NOTHING"""
# One row asks again, so one line of an earlier run goes: if several rows asked for the job then, each takes its own.
CAME_FROM = """
    DELETE FROM ~.origin WHERE (run, place) = (
        SELECT run, place FROM ~.origin WHERE pk = :pk AND run <> :run ORDER BY run, place LIMIT 1)"""
# A row whose place in its run another one has by now counts as one without a run.
NOW_HAS = """
    WITH has AS (UPDATE ~.origin SET question = :question, meta = :meta WHERE pk = :pk RETURNING pk),
    at AS (
        SELECT pk, place, CASE WHEN EXISTS (
            SELECT FROM ~.origin o WHERE o.run = job.run AND o.place = job.place AND o.pk <> job.pk
        ) THEN '' ELSE run END AS run
        FROM ~.job WHERE pk = :pk)
    INSERT INTO ~.origin(run, place, pk, question, meta)
    SELECT run, CASE run WHEN '' THEN pk ELSE place END, pk, :question, :meta FROM at
    WHERE NOT EXISTS (SELECT FROM has)
    ON CONFLICT (run, place) DO UPDATE SET pk = excluded.pk, question = excluded.question, meta = excluded.meta"""

# --- other marks -----------------------------------------------------------------------------------------------------

# Not what came of the row since: another session may have submitted it again, or have found the job after all.
DELIVER = f"""
    UPDATE ~.job SET delivered = true, updated = {NOW} FROM unnest(:pks, :keys, :states) AS said(pk, key, state)
    WHERE job.pk = said.pk AND job.key IS NOT DISTINCT FROM nullif(said.key, '') AND job.state = said.state
        AND job.state {FINAL}"""
# What has no result may be submitted again, and needs its bytes.
DELIVER_AND_FORGET = f"""
    WITH told AS ({DELIVER} RETURNING job.pk, job.state),
    gone AS (DELETE FROM ~.result USING told WHERE result.pk = told.pk),
    asked AS (UPDATE ~.origin SET question = '', meta = '' FROM told WHERE origin.pk = told.pk)
    UPDATE ~.request SET body = '' FROM told WHERE request.pk = told.pk AND told.state = {int(State.DONE)}"""
UNREAD = "INSERT INTO ~.unread(worker) VALUES (:me) ON CONFLICT DO NOTHING"
# A session that is gone reads no more of its source.
READ = "DELETE FROM ~.unread WHERE worker = :me OR NOT EXISTS (SELECT FROM ~.worker WHERE id = unread.worker)"
REMEMBER = """
    INSERT INTO ~.learnt(name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value"""

# --- money -----------------------------------------------------------------------------------------------------------

_CENTI_CENT = 0.0001
CAP = f"""
    INSERT INTO ~.account(name, cap) VALUES ('{MONEY}', :dollars) ON CONFLICT (name) DO UPDATE SET cap = excluded.cap
    RETURNING (SELECT cap FROM ~.account WHERE name = '{MONEY}') AS before, xmax = 0 AS is_new"""
MAKE_MONEY = f"INSERT INTO ~.account(name, cap) VALUES ('{MONEY}', :dollars) ON CONFLICT DO NOTHING"
# The row first: what changes both locks it before the sums, and a part that writes is carried out whoever reads it.
# One that is sent again under a key that the server knows makes no second bill: it needs room for what it holds and no
# more. Without such a key the first bill may stay, so the whole amount has to fit beside it. One that was never sent
# and finds no room holds nothing, or others would wait for what it holds.
HOLD = f"""
    WITH mine AS (
        SELECT pk, hold, state {_among(frozenset({State.SENDING, State.IN_DOUBT}))} AND hold > 0 AS was_sent
        FROM ~.job WHERE pk = :pk AND {LIVE} AND NOT state {_among(OVER)} FOR UPDATE),
    seen AS (
        SELECT pk, hold, was_sent,
            was_sent AND :again AND (cap IS NULL OR spent + held <= cap + {_CENTI_CENT}) AS keeps,
            cap IS NULL OR spent + held + :dollars
                - CASE WHEN was_sent AND NOT :again THEN 0 ELSE hold END <= cap + {_CENTI_CENT} AS fits
        FROM mine, ~.account AS money WHERE name = '{MONEY}' FOR UPDATE OF money),
    now AS (SELECT pk, hold, CASE WHEN fits THEN :dollars WHEN was_sent THEN hold ELSE 0 END AS amount FROM seen),
    room AS (
        UPDATE ~.account SET held = greatest(0, held + now.amount - now.hold) FROM now
        WHERE name = '{MONEY}' AND now.amount <> now.hold),
    held AS (UPDATE ~.job SET hold = now.amount FROM now WHERE job.pk = now.pk AND now.amount <> now.hold)
    SELECT EXISTS (SELECT FROM mine) AS is_mine,
        EXISTS (SELECT FROM seen WHERE fits OR keeps) AS is_held,
        EXISTS (SELECT FROM ~.account WHERE name = '{MONEY}') AS is_there"""
# What a session that is gone held back for what it never sent is let go by whoever is short of room.
ROOM = f"""
    WITH unsent AS (
        SELECT pk, hold FROM ~.job WHERE hold > 0 AND owner IS NULL AND state = {int(State.QUEUED)}
        FOR UPDATE SKIP LOCKED),
    freed AS (UPDATE ~.job SET hold = 0 FROM unsent WHERE job.pk = unsent.pk RETURNING unsent.hold),
    money AS (
        UPDATE ~.account SET held = greatest(0, held - (SELECT coalesce(sum(hold), 0) FROM freed))
        WHERE name = '{MONEY}' RETURNING cap, spent, held)
    SELECT cap, spent, held, EXISTS (
        SELECT FROM ~.job WHERE hold > 0 AND pk <> ALL(:pks)
            AND (state {_among(RUNNING)} OR state = {int(State.QUEUED)} AND owner IS NOT NULL)) AS may_change
    FROM money"""
LOCK_MONEY = f"SELECT FROM ~.account WHERE name = '{MONEY}' FOR UPDATE"
RECOUNT = f"""
    UPDATE ~.account SET held = (SELECT coalesce(sum(hold), 0) FROM ~.job), spent = (
        SELECT coalesce(sum(cost), 0) FROM (
            SELECT cost FROM ~.job UNION ALL SELECT coalesce(cost, 0) + hold FROM ~.past) AS bills)
    WHERE name = '{MONEY}'"""

# --- sums and lists --------------------------------------------------------------------------------------------------

# Whoever is at one of these rows at this moment keeps it for the next time. What a step would need is kept.
FORGET = f"""
    WITH old AS (
        SELECT * FROM ~.job WHERE state {_among(OVER)} AND ended_at < {NOW} - :seconds
            AND (delivered OR ended_at < {NOW} - 2 * :seconds)
        ORDER BY ended_at LIMIT :limit FOR UPDATE SKIP LOCKED),
    {_to_the_past()},
    {_BILL}
    DELETE FROM ~.job USING old WHERE job.pk = old.pk RETURNING job.pk"""

COUNTS = "SELECT state, count(*) AS count FROM ~.job GROUP BY state"
_SUMS = "count(*) AS count, coalesce(sum(cost), 0) AS dollars, count(*) FILTER (WHERE cost IS NULL) AS unpriced"
BILLS = f"""
    SELECT tag, api, state, {_SUMS} FROM (
        SELECT tag, api, state, cost FROM ~.job UNION ALL SELECT tag, api, state, cost FROM ~.past) AS bills
    GROUP BY tag, api, state"""
SPENT = f"""
    SELECT kind, state, {_SUMS} FROM (
        SELECT kind, state, cost FROM ~.job UNION ALL SELECT kind, state, cost FROM ~.past) AS bills
    GROUP BY kind, state"""
SAMPLES = """
    SELECT kind, cost FROM (
        SELECT kind, cost, row_number() OVER (PARTITION BY kind ORDER BY pk DESC) AS nth
        FROM ~.job WHERE cost IS NOT NULL) AS known
    WHERE nth <= :samples ORDER BY kind, nth"""
# A job's own run and place count while no line of `origin` says more. Without a run it comes after all that have one.
ORDER = """
    SELECT run, place, pk FROM ~.origin
    UNION ALL SELECT run, CASE run WHEN '' THEN pk ELSE place END, pk FROM ~.job
    WHERE NOT EXISTS (SELECT FROM ~.origin WHERE origin.pk = job.pk)
    ORDER BY run DESC, place, pk"""
ASKED = "SELECT run, place, pk, question, meta FROM ~.origin WHERE pk = ANY(:pks)"
REPLACED = """
    SELECT pk FROM ~.past WHERE key = :key AND :key <> '' OR job_id = :job_id AND :job_id <> ''
    ORDER BY key IS NOT DISTINCT FROM :key DESC LIMIT 1"""
LEARNT = "SELECT name, value FROM ~.learnt"
RECALL = "SELECT value FROM ~.learnt WHERE name = :name"
RESULT = (
    "SELECT enc, size, body, (SELECT job_id FROM ~.job WHERE job.pk = result.pk) AS job_id FROM ~.result WHERE pk = :pk"
)
# The sequence itself may be read by those only who have SELECT to it; USAGE, by which rows are made, is enough here.
META = """
    SELECT k, v FROM ~.meta
    UNION ALL SELECT 'exhausted', (NOT EXISTS (SELECT FROM ~.unread))::text
    UNION ALL SELECT 'clean', (NOT EXISTS (SELECT FROM ~.worker))::text
    UNION ALL SELECT 'openings', coalesce((
        SELECT last_value FROM pg_sequences WHERE schemaname = '~' AND sequencename = 'worker_id_seq'), 0)::text"""
WRITER = "SELECT pid, host FROM ~.worker WHERE until > clock_timestamp() ORDER BY id DESC LIMIT 1"
