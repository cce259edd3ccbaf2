import { keyWindow } from '../../core/log.ts'
import { thrown } from './client.ts'

/** Grows when a program of before could not use the tables. */
export const formatVersion = 1

/** How many changes of rights are kept for servers that come back. */
const rightsKept = 1024
/** How many batches one commit removes at the most, beside twice what it stores: appends must not wait for a long cleaning. */
const sliceLength = 512
/** What one round of the outbox moves. */
const relayLength = 1024
const relayBytes = 4 * 2 ** 20

/** How the tables and functions of a log are called in SQL. */
export class Names {
  readonly schema: string
  readonly name: string
  readonly state: string
  readonly batches: string
  readonly keys: string
  readonly answers: string
  readonly rights: string
  readonly outbox: string
  readonly end: string
  readonly append: string
  readonly trim: string
  readonly relay: string
  readonly announce: string
  readonly locate: string
  /** The channel of its notifications. Logs of one name in two schemas wake each other up in vain. */
  readonly channel: string

  constructor(schema: string, name: string) {
    const called = (what: string) => `"${schema.replaceAll('"', '""')}"."${name}_${what}"`
    this.schema = schema
    this.name = name
    this.state = called('state')
    this.batches = called('batches')
    this.keys = called('keys')
    this.answers = called('answers')
    this.rights = called('rights')
    this.outbox = called('outbox')
    this.end = called('end')
    this.append = called('append')
    this.trim = called('trim')
    this.relay = called('relay')
    this.announce = called('announce')
    this.locate = called('locate')
    this.channel = `spillway_${name}`
  }

  /** For messages. */
  toString(): string {
    return `${this.schema}.${this.name}`
  }
}

/**
 * The format. One batch is one row: `previous` is the index of the one before it, so that a missing row is noticed; `seq`
 * counts batches, `total` their bytes up to and with this one; `time`, in Unix milliseconds, never falls.
 *
 * Order    Whoever appends locks the one row of `state` until it commits: so batches become visible in the order of their
 *          indexes, and nobody ever sees a hole that is filled later. The newest index is that of the newest row. It is
 *          not kept in `state` as well: a row that every append updates grows a tail of dead versions for as long as any
 *          transaction of the database stays open, and every append would walk it.
 * Once     A server numbers its appends and has one under way at a time. The last row of each says whose it is, its number
 *          and its answer: the same number again gets that answer, a lower one is refused. So a statement whose answer was
 *          lost can be sent again, whatever became of the first. It is looked for behind the index that the server knew
 *          when it sent the first; of rows that are removed, `answers` keeps what the newest of each server said.
 *
 * `last` of `state` is the newest index where no row says it: it has been removed, or was never there to import.
 */
export function tablesOf(names: Names): string {
  const { state, batches, keys, answers, rights, outbox } = names
  return `
CREATE TABLE ${state} (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  spillway_format integer NOT NULL,
  epoch text NOT NULL,
  floor bigint NOT NULL DEFAULT 0,
  floor_seq bigint NOT NULL DEFAULT 0,
  floor_total bigint NOT NULL DEFAULT 0,
  floor_time bigint NOT NULL DEFAULT 0,
  last bigint NOT NULL DEFAULT 0,
  changes bigint NOT NULL DEFAULT 0
);
CREATE TABLE ${batches} (
  idx bigint PRIMARY KEY,
  previous bigint NOT NULL,
  seq bigint NOT NULL,
  total bigint NOT NULL,
  time bigint NOT NULL,
  bytes bigint NOT NULL,
  data text NOT NULL,
  writer uuid,
  number bigint,
  answer text
);
CREATE TABLE ${keys} (
  n bigint PRIMARY KEY,
  key bytea NOT NULL UNIQUE,
  digest bigint NOT NULL,
  base bigint NOT NULL
);
CREATE TABLE ${answers} (
  writer uuid PRIMARY KEY,
  number bigint NOT NULL,
  idx bigint NOT NULL,
  total bigint NOT NULL,
  time bigint NOT NULL,
  answer text NOT NULL,
  removed timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE ${rights} (
  n bigint PRIMARY KEY,
  after bigint NOT NULL,
  change text NOT NULL,
  writer text NOT NULL
);
CREATE TABLE ${outbox} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  bytes bigint NOT NULL,
  data text NOT NULL
);
${functionsOf(names)}`
}

/** Locks the state into `s`. */
const lock = ({ state }: Names) => `
  SELECT * INTO s FROM ${state} FOR UPDATE;
  IF s.epoch IS DISTINCT FROM p_epoch THEN
    RAISE EXCEPTION 'the history is another one now, its epoch is %', s.epoch USING ERRCODE = '${thrown.replaced}';
  END IF;`

/** Finds out where the history ends: `v_end`. Not in one statement with the lock: that would see what was there before it waited. */
const standOn = ({ batches }: Names) => `
  SELECT idx, seq, total, time INTO v_end FROM ${batches} ORDER BY idx DESC LIMIT 1;
  IF NOT FOUND THEN
    v_end := ROW(s.floor, s.floor_seq, s.floor_total, s.floor_time);
  END IF;
  v_last := greatest(v_end.idx, s.last);`

const declarations = ({ end }: Names) => `
  s record;
  v_end ${end};
  v_last bigint;
  v_time bigint;`

/** Whether a commit is as durable as was promised, by the settings of the database and of this session. */
const isLevelKept = `(
    (p_level = 'process' OR current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on')
    AND (p_level <> 'machine' OR current_setting('synchronous_standby_names') <> '')
    AND current_setting('synchronous_commit') IN ('on', 'remote_apply')
  )`

/** No setting of a session, role or database may make a commit less durable than was promised. */
const keepLevel = `
  IF p_level <> 'process' AND (current_setting('fsync') <> 'on' OR current_setting('full_page_writes') <> 'on') THEN
    RAISE EXCEPTION 'fsync and full_page_writes must be on for durability "%"', p_level USING ERRCODE = '${thrown.level}';
  END IF;
  IF p_level = 'machine' AND current_setting('synchronous_standby_names') = '' THEN
    RAISE EXCEPTION 'synchronous_standby_names must name a standby for durability "machine"' USING ERRCODE = '${thrown.level}';
  END IF;
  IF current_setting('synchronous_commit') = 'off'
    OR p_level = 'machine' AND current_setting('synchronous_commit') IN ('local', 'remote_write') THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;`

/** By the clock of the database, which all servers share, unless the caller brings one. It never falls. */
const timeAfter = (time: string) =>
  `greatest(${time}, coalesce(p_now, trunc(extract(epoch FROM clock_timestamp()) * 1000)::bigint))`

/** Whether more is kept than may be. */
const isOver = (seq: string, total: string) => `(${seq} - s.floor_seq > p_capacity + p_capacity / 64
    OR ${total} - s.floor_total > p_bytes + p_bytes / 64)`

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

function functionsOf(names: Names): string {
  const { state, batches, keys, answers, rights, outbox, end, append, trim, relay, announce, locate, channel } = names
  const declare = declarations(names)
  return `
CREATE TYPE ${end} AS (idx bigint, seq bigint, total bigint, time bigint);

CREATE FUNCTION ${trim}(
  p_end ${end}, p_time bigint, p_capacity bigint, p_bytes bigint, p_age bigint, p_added bigint
) RETURNS bigint LANGUAGE plpgsql AS $spillway$
DECLARE
  s record;
  v_over boolean;
  v_cut ${end};
BEGIN
  SELECT * INTO s FROM ${state};
  v_over := ${isOver('p_end.seq', 'p_end.total')};
  IF NOT v_over AND (p_age = ${Number.MAX_SAFE_INTEGER} OR NOT coalesce(
    (SELECT p_time - time > p_age FROM ${batches} WHERE idx > s.floor ORDER BY idx LIMIT 1), false
  )) THEN
    RETURN s.floor;
  END IF;
  SELECT idx, seq, total, time INTO v_cut FROM (
    SELECT * FROM ${batches} WHERE idx > s.floor ORDER BY idx LIMIT greatest(${sliceLength}, 2 * p_added)
  ) AS oldest
  WHERE v_over AND (seq <= p_end.seq - p_capacity OR total - bytes < p_end.total - p_bytes) OR p_time - time > p_age
  ORDER BY idx DESC LIMIT 1;
  IF NOT FOUND THEN
    RETURN s.floor;
  END IF;
  WITH removed AS (
    DELETE FROM ${batches} WHERE idx <= v_cut.idx RETURNING writer, number, idx, total, time, answer
  )
  INSERT INTO ${answers} (writer, number, idx, total, time, answer)
  SELECT DISTINCT ON (writer) * FROM removed WHERE writer IS NOT NULL ORDER BY writer, idx DESC
  ON CONFLICT (writer) DO UPDATE SET number = EXCLUDED.number, idx = EXCLUDED.idx, total = EXCLUDED.total,
    time = EXCLUDED.time, answer = EXCLUDED.answer, removed = now();
  UPDATE ${state} SET floor = v_cut.idx, floor_seq = v_cut.seq, floor_total = v_cut.total, floor_time = v_cut.time,
    last = greatest(last, p_end.idx);
  RETURN v_cut.idx;
END
$spillway$;

-- Without p_leads all is stored under the next indexes. A single batch, without p_sizes as well, is what most appends are:
-- where its server knew the newest index, one statement stores it. Each expression of a function costs about a microsecond.
CREATE FUNCTION ${append}(
  p_level text, p_capacity bigint, p_bytes bigint, p_age bigint, p_epoch text, p_now bigint,
  p_writer uuid, p_number bigint, p_since bigint, p_seen bigint, p_size bigint, p_texts text, p_sizes bigint[] = NULL,
  p_leads bigint[] = NULL, p_firsts bigint[] = NULL, p_ends bigint[] = NULL, p_keys text[] = NULL,
  p_digests bigint[] = NULL, p_expected bigint[] = NULL, p_jobs integer[] = NULL, p_at bigint[] = NULL
) RETURNS text LANGUAGE plpgsql AS $spillway$
DECLARE${declare}
  v_earlier record;
  v_key record;
  v_at bigint;
  v_n bigint;
  v_added bigint := 0;
  v_seq bigint;
  v_total bigint;
  v_code text;
  v_value bigint;
  v_codes text := '';
  v_values bigint[] := '{}';
  v_bases bigint[] := '{}';
  v_floor bigint;
  v_answer text;
  v_void text;
BEGIN${lock(names)}
  IF p_sizes IS NULL AND p_number > 0 AND p_seen = p_since AND ${isLevelKept} THEN
    INSERT INTO ${batches}
    SELECT p_seen + 1, p_seen, seq + 1, total + p_size, ${timeAfter('time')}, p_size, p_texts, p_writer, p_number,
      p_seen || ' ' || s.changes
    FROM (SELECT idx, seq, total, time FROM ${batches} ORDER BY idx DESC LIMIT 1) AS newest
    WHERE idx = p_seen AND s.last <= p_seen
    RETURNING seq, total, time, answer, pg_notify('${channel}', idx || ' ' || s.changes)
    INTO v_seq, v_total, v_time, v_answer, v_void;
    IF FOUND THEN
      v_floor := s.floor;
      IF p_age < ${Number.MAX_SAFE_INTEGER} OR ${isOver('v_seq', 'v_total')} THEN
        v_floor := ${trim}(ROW(p_seen + 1, v_seq, v_total, v_time), v_time, p_capacity, p_bytes, p_age, 1);
      END IF;
      RETURN v_floor || ' ' || p_seen + 1 || ' ' || v_total || ' ' || v_time || ' ' || v_answer;
    END IF;
  END IF;${standOn(names)}
  IF v_last < p_seen THEN
    RAISE EXCEPTION 'the newest index is %, it was % before', v_last, p_seen USING ERRCODE = '${thrown.shrunk}';
  END IF;
  IF p_number > 0 THEN${keepLevel}
    IF v_last > p_since THEN
      -- There are no more rows than the limit says. With it the index is used, whatever is known of the table.
      SELECT number, idx, total, time, answer INTO v_earlier FROM (
        SELECT * FROM ${batches} WHERE idx > p_since ORDER BY idx DESC LIMIT v_last - p_since
      ) AS since WHERE writer = p_writer ORDER BY idx DESC LIMIT 1;
      IF NOT FOUND AND s.floor > p_since THEN
        SELECT number, idx, total, time, answer INTO v_earlier FROM ${answers} WHERE writer = p_writer;
      END IF;
      IF FOUND AND v_earlier.number > p_number THEN
        RAISE EXCEPTION 'append % was given up', p_number USING ERRCODE = '${thrown.abandoned}';
      ELSIF FOUND AND v_earlier.number = p_number THEN
        RETURN s.floor || ' ' || v_earlier.idx || ' ' || v_earlier.total || ' ' || v_earlier.time || ' ' || v_earlier.answer;
      END IF;
    END IF;
  ELSE
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;
  v_time := ${timeAfter('v_end.time')};
  v_at := v_last;
  v_answer := v_last || ' ' || s.changes;
  IF p_leads IS NOT NULL THEN
    FOR job IN 1 .. array_length(p_leads, 1) LOOP
      v_code := 'S';
      v_value := v_at;
      IF p_keys[job] <> '' THEN
        SELECT digest, base INTO v_key FROM ${keys} WHERE key = decode(p_keys[job], 'hex');
        IF FOUND AND v_key.digest = p_digests[job] THEN
          v_code := 'D';
          v_value := v_key.base;
        ELSIF FOUND THEN
          v_code := 'K';
        END IF;
      END IF;
      IF v_code <> 'S' THEN
        NULL;
      ELSIF p_expected[job] >= 0 AND p_expected[job] <> v_at THEN
        v_code := 'M';
      ELSIF v_at + p_leads[job] > ${Number.MAX_SAFE_INTEGER}
        OR p_firsts[job] <> 0 AND p_firsts[job] <= v_at + p_leads[job] THEN
        v_code := 'O';
      ELSE
        v_at := CASE p_firsts[job] WHEN 0 THEN v_at + p_leads[job] ELSE p_ends[job] END;
        IF p_keys[job] <> '' THEN
          v_n := coalesce(v_n, (SELECT max(n) FROM ${keys}), 0) + 1;
          INSERT INTO ${keys} VALUES (v_n, decode(p_keys[job], 'hex'), p_digests[job], v_value);
          IF v_n % ${sliceLength} = 0 THEN
            DELETE FROM ${keys} WHERE n <= v_n - ${keyWindow};
          END IF;
        END IF;
      END IF;
      v_codes := v_codes || v_code;
      v_values := v_values || v_value;
      v_bases := v_bases || CASE v_code WHEN 'S' THEN v_value ELSE -1 END;
    END LOOP;
    v_answer := v_answer || ' ' || v_codes || ' ' || array_to_string(v_values, ',');
    IF v_at > v_last THEN
      INSERT INTO ${batches}
      SELECT idx, lag(idx, 1, v_last) OVER w, v_end.seq + row_number() OVER w, v_end.total + sum(bytes) OVER w, v_time,
        bytes, data, CASE idx WHEN v_at THEN p_writer END, CASE idx WHEN v_at THEN p_number END,
        CASE idx WHEN v_at THEN v_answer END
      FROM (
        SELECT CASE WHEN b.at < 0 THEN v_bases[b.job] - b.at ELSE b.at END AS idx, b.bytes, b.data
        FROM unnest(p_jobs, p_at, p_sizes, string_to_array(p_texts, E'\\x1d')) AS b (job, at, bytes, data)
        WHERE v_bases[b.job] >= 0
      ) AS added
      WINDOW w AS (ORDER BY idx);
      GET DIAGNOSTICS v_added = ROW_COUNT;
      SELECT idx, seq, total, time INTO v_end FROM ${batches} WHERE idx = v_at;
    END IF;
  ELSIF p_texts IS NOT NULL THEN
    v_added := coalesce(array_length(p_sizes, 1), 1);
    v_at := v_last + v_added;
    IF v_at > ${Number.MAX_SAFE_INTEGER} THEN
      RAISE EXCEPTION 'the history is full';
    END IF;
    INSERT INTO ${batches}
    SELECT v_last + n, v_last + n - 1, v_end.seq + n, v_end.total + sum(bytes) OVER (ORDER BY n), v_time, bytes, data,
      CASE n WHEN v_added THEN p_writer END, CASE n WHEN v_added THEN p_number END, CASE n WHEN v_added THEN v_answer END
    FROM unnest(coalesce(p_sizes, ARRAY[p_size]), string_to_array(p_texts, E'\\x1d')) WITH ORDINALITY AS b (bytes, data, n);
    v_end := ROW(v_at, v_end.seq + v_added, v_end.total + p_size, v_time);
  END IF;
  IF v_added > 0 THEN
    v_void := pg_notify('${channel}', v_at || ' ' || s.changes);
  END IF;
  v_floor := s.floor;
  IF p_age < ${Number.MAX_SAFE_INTEGER} OR ${isOver('v_end.seq', 'v_end.total')} THEN
    v_floor := ${trim}(v_end, v_time, p_capacity, p_bytes, p_age, v_added);
  END IF;
  RETURN v_floor || ' ' || v_at || ' ' || v_end.total || ' ' || v_end.time || ' ' || v_answer;
END
$spillway$;

CREATE FUNCTION ${relay}(
  p_epoch text, p_level text, p_now bigint, p_capacity bigint, p_bytes bigint, p_age bigint
) RETURNS bigint LANGUAGE plpgsql AS $spillway$
DECLARE${declare}
  v_added bigint;
BEGIN
  -- One at a time: what commits meanwhile wakes whoever moves now once more.
  IF NOT EXISTS (SELECT FROM ${outbox})
    OR NOT pg_try_advisory_xact_lock(hashtextextended(${literal(`spillway relay ${names}`)}, 0)) THEN
    RETURN 0;
  END IF;${lock(names)}${standOn(names)}${keepLevel}
  v_time := ${timeAfter('v_end.time')};
  WITH oldest AS (
    SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS ahead
    FROM (SELECT id, bytes FROM ${outbox} ORDER BY id LIMIT least(${relayLength}, ${Number.MAX_SAFE_INTEGER} - v_last)) AS o
  ), moved AS (
    DELETE FROM ${outbox} AS o USING oldest WHERE o.id = oldest.id AND oldest.ahead < ${relayBytes}
    RETURNING o.id, o.bytes, o.data
  )
  INSERT INTO ${batches} (idx, previous, seq, total, time, bytes, data)
  SELECT v_last + row_number() OVER w, v_last + row_number() OVER w - 1, v_end.seq + row_number() OVER w,
    v_end.total + sum(bytes) OVER w, v_time, bytes, data
  FROM moved
  WINDOW w AS (ORDER BY id);
  GET DIAGNOSTICS v_added = ROW_COUNT;
  IF v_added > 0 THEN
    SELECT idx, seq, total, time INTO v_end FROM ${batches} WHERE idx = v_last + v_added;
    PERFORM pg_notify('${channel}', v_end.idx || ' ' || s.changes);
    PERFORM ${trim}(v_end, v_time, p_capacity, p_bytes, p_age, v_added);
  END IF;
  RETURN v_added;
END
$spillway$;

CREATE FUNCTION ${announce}(p_epoch text, p_writer text, p_change text) RETURNS bigint LANGUAGE plpgsql AS $spillway$
DECLARE${declare}
BEGIN${lock(names)}${standOn(names)}
  UPDATE ${state} SET changes = changes + 1;
  INSERT INTO ${rights} VALUES (s.changes + 1, v_last, p_change, p_writer);
  DELETE FROM ${rights} WHERE n <= s.changes + 1 - ${rightsKept};
  PERFORM pg_notify('${channel}', v_last || ' ' || s.changes + 1);
  RETURN s.changes + 1;
END
$spillway$;

-- A search by halves over indexes, which grow as times and counts do.
CREATE FUNCTION ${locate}(p_since bigint, p_count bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $spillway$
DECLARE
  s record;
  v_end record;
  v_row record;
  v_low bigint;
  v_high bigint;
  v_middle bigint;
BEGIN
  SELECT * INTO s FROM ${state};
  SELECT idx, seq INTO v_end FROM ${batches} WHERE idx > s.floor ORDER BY idx DESC LIMIT 1;
  IF NOT FOUND THEN
    RETURN greatest(s.floor, s.last);
  END IF;
  v_low := s.floor;
  v_high := v_end.idx;
  WHILE v_low < v_high LOOP
    v_middle := v_low + (v_high - v_low + 1) / 2;
    SELECT idx, seq, time INTO v_row FROM ${batches} WHERE idx >= v_middle ORDER BY idx LIMIT 1;
    IF v_row.idx <= v_high
      AND (CASE WHEN p_since IS NULL THEN v_row.seq <= v_end.seq - p_count ELSE v_row.time < p_since END) THEN
      v_low := v_row.idx;
    ELSE
      v_high := v_middle - 1;
    END IF;
  END LOOP;
  RETURN v_low;
END
$spillway$;
`
}
