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
/** How many answers of each server are kept. */
const answersKept = 64

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
 * Once     A server numbers its appends, and each stores its answer: the same number again gets that answer, a lower one
 *          is refused. So a statement whose answer was lost can be sent again, whatever became of the first.
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
  data text NOT NULL
);
CREATE TABLE ${keys} (
  n bigint PRIMARY KEY,
  key bytea NOT NULL UNIQUE,
  digest bigint NOT NULL,
  base bigint NOT NULL
);
CREATE TABLE ${answers} (
  writer text NOT NULL,
  number bigint NOT NULL,
  answer text NOT NULL,
  stored timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (writer, number)
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

/** Locks the state into `s`, and finds out where the history ends: `v_end`. */
const standOn = ({ state, batches }: Names) => `
  SELECT * INTO s FROM ${state} FOR UPDATE;
  IF s.epoch IS DISTINCT FROM p_epoch THEN
    RAISE EXCEPTION 'the history is another one now, its epoch is %', s.epoch USING ERRCODE = '${thrown.replaced}';
  END IF;
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

/** By the clock of the database, which all servers share, unless the caller brings one. */
const readTime = `
  v_time := greatest(v_end.time, coalesce(p_now, trunc(extract(epoch FROM clock_timestamp()) * 1000)::bigint));`

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
  v_over := p_end.seq - s.floor_seq > p_capacity + p_capacity / 64
    OR p_end.total - s.floor_total > p_bytes + p_bytes / 64;
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
  DELETE FROM ${batches} WHERE idx <= v_cut.idx;
  UPDATE ${state} SET floor = v_cut.idx, floor_seq = v_cut.seq, floor_total = v_cut.total, floor_time = v_cut.time,
    last = greatest(last, p_end.idx);
  RETURN v_cut.idx;
END
$spillway$;

CREATE FUNCTION ${append}(
  p_epoch text, p_writer text, p_number bigint, p_seen bigint, p_level text,
  p_now bigint, p_capacity bigint, p_bytes bigint, p_age bigint,
  p_leads bigint[], p_firsts bigint[], p_ends bigint[], p_keys text[], p_digests bigint[], p_expected bigint[],
  p_jobs integer[], p_at bigint[], p_sizes bigint[], p_texts text
) RETURNS text LANGUAGE plpgsql AS $spillway$
DECLARE${declare}
  v_answer record;
  v_key record;
  v_at bigint;
  v_n bigint;
  v_added bigint := 0;
  v_code text;
  v_value bigint;
  v_codes text := '';
  v_values bigint[] := '{}';
  v_bases bigint[] := '{}';
  v_floor bigint;
  v_text text;
BEGIN${standOn(names)}
  IF v_last < p_seen THEN
    RAISE EXCEPTION 'the newest index is %, it was % before', v_last, p_seen USING ERRCODE = '${thrown.shrunk}';
  END IF;
  IF p_number > 0 THEN${keepLevel}
    SELECT number, answer INTO v_answer FROM ${answers}
      WHERE writer = p_writer AND number >= p_number ORDER BY number DESC LIMIT 1;
    IF FOUND AND v_answer.number > p_number THEN
      RAISE EXCEPTION 'append % was given up', p_number USING ERRCODE = '${thrown.abandoned}';
    ELSIF FOUND THEN
      RETURN v_answer.answer;
    END IF;
  ELSE
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;${readTime}
  v_at := v_last;
  FOR job IN 1 .. coalesce(array_length(p_leads, 1), 0) LOOP
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
  IF v_at > v_last THEN
    INSERT INTO ${batches} (idx, previous, seq, total, time, bytes, data)
    SELECT idx, lag(idx, 1, v_last) OVER w, v_end.seq + row_number() OVER w, v_end.total + sum(bytes) OVER w, v_time,
      bytes, data
    FROM (
      SELECT CASE WHEN b.at < 0 THEN v_bases[b.job] - b.at ELSE b.at END AS idx, b.bytes, b.data
      FROM unnest(p_jobs, p_at, p_sizes, string_to_array(p_texts, E'\\x1d')) AS b (job, at, bytes, data)
      WHERE v_bases[b.job] >= 0
    ) AS added
    WINDOW w AS (ORDER BY idx);
    GET DIAGNOSTICS v_added = ROW_COUNT;
    SELECT idx, seq, total, time INTO v_end FROM ${batches} WHERE idx = v_at;
    PERFORM pg_notify('${channel}', v_at || ' ' || s.changes);
  END IF;
  v_floor := ${trim}(v_end, v_time, p_capacity, p_bytes, p_age, v_added);
  v_text := json_build_object(
    'floor', v_floor, 'base', v_last, 'last', v_at, 'changes', s.changes, 'mark', v_end.total || ' ' || v_end.time,
    'codes', v_codes, 'values', v_values
  )::text;
  IF v_added > 0 THEN
    INSERT INTO ${answers} (writer, number, answer) VALUES (p_writer, p_number, v_text);
    IF p_number % ${answersKept} = 0 THEN
      DELETE FROM ${answers} WHERE writer = p_writer AND number <= p_number - ${answersKept};
    END IF;
  END IF;
  RETURN v_text;
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
  END IF;${standOn(names)}${keepLevel}${readTime}
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
BEGIN${standOn(names)}
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
