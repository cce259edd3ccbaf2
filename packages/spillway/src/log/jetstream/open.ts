import { JetStreamApiError, type StreamConfig, type StreamInfo } from '@nats-io/jetstream'
import { newEpoch } from '../../core/cursor.ts'
import { SpillwayError, shown } from '../../core/errors.ts'
import type { Engine } from './engine.ts'
import { asError, engineFailure, shownError } from './failure.ts'
import { knowsGroups } from './sender.ts'

/** What a stream is to be. */
export interface StreamWish {
  readonly replicas: number | undefined
  /** Batches; `undefined`: as it is. */
  readonly capacity: number | undefined
  /** Bytes of messages; 0: no limit. */
  readonly maxBytes: number | undefined
  /** Milliseconds. */
  readonly maxAge: number | undefined
  /** The sequence of the first message, for a stream that is made. */
  readonly firstSeq?: number
}

/** An open stream, and the history in it. */
export interface OpenedStream {
  readonly info: StreamInfo
  readonly epoch: string
  /** All but the kind of the subjects that are written. */
  readonly base: string
}

const defaultMaxBytes = 2 ** 30
/** How long the engine remembers ids of messages, in milliseconds: none comes twice. */
const idAge = 10_000
const shortestWindow = 100
const description = 'Spillway log, format 1. Its indexes are the sequences; do not publish to it by hand.'
/** Of a stream that is being imported: no log yet. */
const unfinished = 'Spillway import, not finished. If nobody is at it any more, remove it.'
const described = /^Spillway log, format 1\.(?:.* Generation (\d+)\.)?/
/** How often, and after how many milliseconds each, a stream is looked for that another server makes. */
const mostLooks = 50
const lookMs = 100
const nanos = (ms: number) => ms * 1_000_000
// [JetStream, error codes]
const nameInUse = 10058
const subjectsOverlap = 10065
const withoutCluster = 10074
/** What passes: nodes that are not there yet, or have no leader. */
const passing = [10005, 10008, 10009]

/** Opens the stream of a log, or makes it. Throws `LOG_UNUSABLE` for one that belongs to something else, and where it cannot be made. */
export async function openStream(engine: Engine, wish: StreamWish): Promise<OpenedStream> {
  const found = await engine.info()
  const opened = logIn(engine, found ?? (await create(engine, wish)))
  return found ? { ...opened, info: await adjust(engine, found, wish) } : opened
}

/** The log in a stream. Throws `LOG_UNUSABLE` where there is none. */
export async function findStream(engine: Engine): Promise<OpenedStream> {
  const info = await engine.info()
  if (!info) throw unusable(`There is no stream ${engine.stream}.`)
  return logIn(engine, info)
}

function logIn({ stream }: Engine, info: StreamInfo): OpenedStream {
  if (info.config.description === unfinished) {
    throw unusable(`The stream ${stream} is being imported. If nobody is at it any more, remove it, and import again.`)
  }
  const opened = identify(stream, info)
  if (opened) return opened
  const subjects = (info.config.subjects ?? []).map(shown).join(', ')
  throw unusable(`The stream ${stream} with the subjects ${subjects} was not made by Spillway. Choose another name.`)
}

/** The history in a stream; `undefined`: it is no log's. */
export function identify(stream: string, info: StreamInfo): OpenedStream | undefined {
  const { subjects = [], description: text = '', retention } = info.config
  const token = /^spillway\.(.+)\.([a-z0-9-]+)\.\*$/.exec(subjects[0] ?? '')
  const mark = described.exec(text)
  if (!mark || subjects.length !== 1 || token?.[1] !== stream || retention !== 'limits') return undefined
  // A stream that is made anew with the same configuration is another history.
  const made = Date.parse(info.created).toString(36)
  const epoch = `${token[2]}_${made}${mark[1] ? `_${mark[1]}` : ''}`
  return { info, epoch, base: `spillway.${stream}.${token[2]}` }
}

/** Makes what follows in a stream another history. */
export async function beginAnew(engine: Engine): Promise<void> {
  const info = await engine.info()
  if (!info) return
  const generation = Number(described.exec(info.config.description ?? '')?.[1] ?? 1) + 1
  const text = `${description} Generation ${generation}.`
  await engine.jsm.streams.update(engine.stream, { ...info.config, description: text })
}

/** Makes a stream that is to be filled, and no log before {@link finishStream}. Throws `LOG_UNUSABLE`, also if there is one. */
export async function makeUnfinished(
  engine: Engine,
  { replicas, firstSeq = 1 }: StreamWish,
): Promise<{ readonly base: string; readonly token: string }> {
  const { stream } = engine
  if (await infoOf(engine)) throw unusable(`There is a stream ${stream} already. Choose another name, or remove it.`)
  const token = newEpoch(Date.now())
  const base = `spillway.${stream}.${token}`
  try {
    await engine.create({
      subjects: [`${base}.*`],
      description: unfinished,
      num_replicas: replicas ?? 1,
      ...groupsOf(engine),
      first_seq: firstSeq,
      // [JetStream] What is sent twice is known by its sequence: ids need not be remembered.
      duplicate_window: nanos(shortestWindow),
    })
  } catch (cause) {
    throw creationError(engine, cause, { replicas })
  }
  return { base, token }
}

/** Makes a stream that was filled a log. `bytes`: about how many it has, which it keeps. */
export async function finishStream(engine: Engine, wish: StreamWish, bytes: number): Promise<void> {
  const info = await infoOf(engine)
  if (info?.config.description !== unfinished) throw unusable(`The stream ${engine.stream} was changed meanwhile.`)
  const maxBytes = wish.maxBytes ?? Math.max(defaultMaxBytes, bytes)
  const limits = { duplicate_window: nanos(idAge), ...limitsOf({ ...wish, maxBytes }) }
  try {
    await engine.jsm.streams.update(engine.stream, { ...info.config, ...limits, description })
  } catch (cause) {
    throw openFailure(engine.stream, cause)
  }
}

async function infoOf(engine: Engine): Promise<StreamInfo | undefined> {
  try {
    return await engine.info()
  } catch (cause) {
    throw openFailure(engine.stream, cause)
  }
}

/** Removes a stream that was not finished. */
export async function removeStream(engine: Engine): Promise<void> {
  const info = await engine.info()
  if (info?.config.description === unfinished) await engine.jsm.streams.delete(engine.stream)
}

async function create(engine: Engine, wish: StreamWish): Promise<StreamInfo> {
  const { stream } = engine
  const config = {
    duplicate_window: nanos(idAge),
    ...limitsOf({ ...wish, maxBytes: wish.maxBytes ?? defaultMaxBytes }),
    subjects: [`spillway.${stream}.${newEpoch(Date.now())}.*`],
    description,
    num_replicas: wish.replicas ?? 1,
    ...groupsOf(engine),
  }
  try {
    return await engine.create(config)
  } catch (cause) {
    // Another server may make it at the same moment, and in a cluster it cannot be seen at once.
    const isTaken = cause instanceof JetStreamApiError && cause.code === nameInUse
    for (let look = 0; isTaken && look < mostLooks; look++) {
      const info = await engine.info()
      if (info) return info
      await new Promise((resolve) => setTimeout(resolve, lookMs))
    }
    throw creationError(engine, cause, wish)
  }
}

function creationError(engine: Engine, cause: unknown, { replicas = 1 }: Pick<StreamWish, 'replicas'>): SpillwayError {
  const { stream } = engine
  const code = cause instanceof JetStreamApiError ? cause.code : 0
  if (code === subjectsOverlap) {
    return unusable(
      `The subjects spillway.${stream}.> are in use by another stream. Choose another name, or remove that.`,
      cause,
    )
  }
  if (code === withoutCluster) return needsCluster(engine, replicas, cause)
  // Nobody answered, or nobody could just now.
  if (!(cause instanceof JetStreamApiError) || passing.includes(code)) {
    return engineFailure(`The stream ${stream} could not be made with ${replicas} replicas.`, cause)
  }
  return unusable(`The stream ${stream} could not be made with ${replicas} replicas. ${shownError(cause)}`, cause)
}

function needsCluster({ connection }: Engine, replicas: number, cause?: unknown): SpillwayError {
  const server = connection.getServer()
  return unusable(
    `${replicas} replicas need a cluster, and ${server} is none. Set replicas to 1, or connect to a cluster.`,
    cause,
  )
}

/** Gives a stream the limits that were asked for. */
async function adjust(engine: Engine, info: StreamInfo, wish: StreamWish): Promise<StreamInfo> {
  const { config } = info
  // A server that is no cluster would take the number, and keep one copy.
  const { replicas = 1 } = wish
  if (replicas > 1 && !engine.connection.info?.cluster) throw needsCluster(engine, replicas)
  const wanted: Partial<StreamConfig> = { ...limitsOf(wish) }
  if (wish.replicas !== undefined) wanted.num_replicas = wish.replicas
  const isSame = Object.entries(wanted).every(([name, value]) => config[name as keyof StreamConfig] === value)
  if (isSame) return info
  try {
    return await engine.jsm.streams.update(engine.stream, { ...config, ...wanted })
  } catch (cause) {
    throw unusable(`The limits of the stream ${engine.stream} could not be changed. ${shownError(cause)}`, cause)
  }
}

/** A stream that is made takes groups where the engine knows them. One that is there is left as it is: the engine could not go back to a version before. */
function groupsOf({ connection }: Engine): Partial<StreamConfig> {
  return knowsGroups(connection) ? { allow_atomic: true } : {}
}

function limitsOf({ capacity, maxBytes, maxAge }: StreamWish): Partial<StreamConfig> {
  const limits: Partial<StreamConfig> = {}
  if (capacity !== undefined) limits.max_msgs_per_subject = capacity
  if (maxBytes !== undefined) limits.max_bytes = maxBytes || -1
  if (maxAge !== undefined) limits.max_age = nanos(maxAge)
  // [JetStream] Ids are remembered no longer than messages are kept.
  if (maxAge !== undefined) limits.duplicate_window = nanos(Math.min(idAge, maxAge))
  return limits
}

/** Whether the engine did not answer in time. */
export function isTimeout(cause: unknown): boolean {
  if (cause instanceof SpillwayError && cause.code === 'LOG_UNUSABLE') return false
  const { name, cause: reason } = asError(cause)
  return name === 'TimeoutError' || (reason !== undefined && isTimeout(reason))
}

/** Why a stream could not be opened or made. */
export function openFailure(stream: string, cause: unknown): SpillwayError {
  if (cause instanceof SpillwayError) return cause
  const { name } = asError(cause)
  if (name === 'JetStreamNotEnabled' || name === 'PermissionViolationError') {
    const advice = 'Enable JetStream for this account, and allow $JS.API.> and spillway.> to its user.'
    return new SpillwayError(
      'LOG_UNUSABLE',
      `The stream ${stream} could not be opened. ${shownError(cause)} ${advice}`,
      { cause },
    )
  }
  return engineFailure(`The stream ${stream} could not be opened.`, cause)
}

function unusable(message: string, cause?: unknown): SpillwayError {
  return new SpillwayError('LOG_UNUSABLE', message, { cause })
}
