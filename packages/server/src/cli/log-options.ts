import type { NatsConnection } from '@nats-io/transport-node'
import { SpillwayError } from 'spillway'
import {
  type FilePart,
  importJetstream,
  type JetStreamHistory,
  type JetStreamLogOptions,
  openJetstreamHistory,
} from 'spillway/log/jetstream'
import type { Engine } from '../engine/engine.ts'
import { connectNats, credsOf, type NatsOptions, openNats } from '../engine/nats.ts'
import { natsPlace } from '../engine/place.ts'
import type { ServerLog } from '../log.ts'
import type { Options, Values } from './command.ts'
import { asDataFailure } from './data-file.ts'
import { UsageError } from './errors.ts'
import { choice, duration, integer, size } from './values.ts'

/** Which log of an engine is meant. */
export const logAccessOptions = {
  log: {
    type: 'string',
    value: '<url>',
    help: 'The log that several servers share: nats://host:4222, several joined by commas, tls:// to encrypt. May hold user:password@ or token@. Default: SPILLWAY_LOG',
  },
  'log-name': { type: 'string', value: '<name>', help: 'With --log: the name of the stream. Default: spillway' },
  'log-creds': {
    type: 'string',
    value: '<file>',
    help: 'With --log: a file of NATS credentials, or of the seed of a user (nkey)',
  },
  'allow-old-engine': { type: 'boolean', help: 'With --log: take a nats-server before 2.10.23, too.' },
} as const

/** How it is kept, where it may have to be made. */
export const logKeepOptions = {
  replicas: {
    type: 'string',
    value: '<n>',
    help: 'With --log: nodes that keep the stream, 1 to 5. Default: as it is; where it is made 3 for durability "machine", else 1',
  },
} as const

/** What `serve` is told of it beside that. */
export const logServeOptions = {
  monitor: {
    type: 'string',
    multiple: true,
    value: '<url>',
    help: 'With --log: a monitoring endpoint of a node, such as http://10.0.0.1:8222; repeatable. For durability "power"',
  },
  patience: {
    type: 'string',
    value: '<time>',
    help: 'With --log: how long a publish waits for an engine that is away before it is refused. Default: 30s',
  },
} as const

type LogValues = Values<typeof logAccessOptions & typeof logKeepOptions & typeof logServeOptions> & {
  readonly data: string | undefined
  readonly memory: boolean
  readonly durability: string | undefined
  readonly keep: string | undefined
  readonly 'keep-bytes': string | undefined
  readonly 'keep-age': string | undefined
  readonly 'max-age': string | undefined
}

const defaultName = 'spillway'
const mostReplicas = 5
const shortestAge = 100
/** Ten years. */
const longestAge = 3650 * 86_400_000
const longestPatience = 3_600_000

/** A log that `--log` or SPILLWAY_LOG names, and how it is to be. */
export type EngineWish = Omit<NatsOptions, 'log'>

/** What `serve` is told of a log of an engine; `undefined`: there is to be none. Throws `UsageError`. */
export function readEngine(values: LogValues): EngineWish | undefined {
  const url = logUrl(values)
  if (url === undefined) {
    refuseWithout(values)
    return undefined
  }
  for (const name of ['memory', 'data', 'max-age'] as const) {
    if (values[name] === undefined || values[name] === false) continue
    const why = name === 'max-age' ? 'With --log it is --keep-age.' : '--log keeps history elsewhere.'
    throw new UsageError(`--${name} does not go with --log or SPILLWAY_LOG. ${why}`)
  }
  try {
    natsPlace(url)
  } catch (error) {
    throw asUsageError(error)
  }
  return { ...placeOf(values), ...limitsOf(values), url, creds: values['log-creds'] }
}

/** Throws `UsageError` and `Failure` that say what is wrong. Here and in `withConnection` other urls lead to other engines. */
export async function openEngine(wish: EngineWish, log: ServerLog): Promise<Engine> {
  return asUsage(() => openNats({ ...wish, log }))
}

/** The url of `--log` or SPILLWAY_LOG; `undefined`: neither is given. */
function logUrl({ log }: Pick<LogValues, 'log'>): string | undefined {
  const url = log ?? (process.env.SPILLWAY_LOG || undefined)
  if (url === '') throw new UsageError('--log must be the url of a log, got "".')
  return url
}

/** What says which stream it is, and how it is kept. Throws `UsageError`. */
function placeOf(
  values: Values<typeof logAccessOptions & typeof logKeepOptions>,
): Pick<JetStreamLogOptions, 'stream' | 'replicas' | 'allowOld'> {
  const { 'log-name': stream = defaultName, replicas, 'allow-old-engine': allowOld } = values
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(stream)) {
    throw new UsageError(`--log-name must be 1 to 64 letters, digits, "_" and "-", got ${JSON.stringify(stream)}.`)
  }
  return {
    stream,
    allowOld,
    ...(replicas !== undefined && { replicas: integer('--replicas', replicas, 1, mostReplicas) }),
  }
}

function limitsOf(values: LogValues): Omit<JetStreamLogOptions, 'connection' | 'stream'> {
  const { durability, keep, 'keep-bytes': keepBytes, 'keep-age': keepAge, monitor, patience } = values
  return {
    ...(durability !== undefined && {
      durability: choice('--durability', durability, ['process', 'machine', 'power']),
    }),
    ...(keep !== undefined && { capacity: integer('--keep', keep, 1, Number.MAX_SAFE_INTEGER) }),
    ...(keepBytes !== undefined && { maxBytes: size('--keep-bytes', keepBytes, 1, Number.MAX_SAFE_INTEGER) }),
    ...(keepAge !== undefined && { maxAge: duration('--keep-age', keepAge, shortestAge, longestAge) }),
    ...(monitor.length > 0 && { monitor: monitor.map(monitorUrl) }),
    ...(patience !== undefined && { patience: duration('--patience', patience, 1, longestPatience) }),
  }
}

function monitorUrl(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text
  throw new UsageError('--monitor must be the http or https url of a node, such as http://10.0.0.1:8222.')
}

function refuseWithout(values: LogValues): void {
  refuseWithoutLog(values, { ...logAccessOptions, ...logKeepOptions, ...logServeOptions })
  if (values.durability === 'machine') {
    throw new UsageError('--durability machine is for --log: one disk does not survive the loss of its machine.')
  }
}

/** Throws `UsageError` for one of `options` that was given where no log of an engine is meant. */
function refuseWithoutLog(values: Readonly<Record<string, unknown>>, options: Options): undefined {
  for (const name of Object.keys(options)) {
    const value = values[name]
    const isGiven = Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false
    if (isGiven) throw new UsageError(`--${name} is for --log.`)
  }
}

/** Makes a log of `parts` where `url` says, and gives the number of batches. Throws as `importJetstream`, and `UsageError`. */
export async function importInto(
  url: string,
  values: Values<typeof logAccessOptions & typeof logKeepOptions>,
  parts: AsyncIterable<FilePart>,
): Promise<number> {
  const options = placeOf(values)
  return withConnection(url, values, (connection) => importJetstream({ ...options, connection }, parts))
}

/** Opens the history where `url` says to look at it, and lets go of it after `use`. Throws `UsageError` and `Failure`. */
export async function withHistory<T>(
  url: string,
  values: Values<typeof logAccessOptions>,
  use: (history: JetStreamHistory) => Promise<T>,
): Promise<T> {
  const options = placeOf({ ...values, replicas: undefined })
  return withConnection(url, values, async (connection) => {
    try {
      return await use(await openJetstreamHistory({ ...options, connection }))
    } catch (error) {
      throw asDataFailure(error)
    }
  })
}

async function withConnection<T>(
  url: string,
  { 'log-creds': creds }: Values<typeof logAccessOptions>,
  use: (connection: NatsConnection) => Promise<T>,
): Promise<T> {
  const connection = await asUsage(() => connectNats(natsPlace(url), creds === undefined ? undefined : credsOf(creds)))
  try {
    return await use(connection)
  } finally {
    await connection.close()
  }
}

/** The url of a log, if that and no folder is meant: a folder that is named, whatever the environment says. Throws `UsageError`. */
export function urlOrFolder(
  values: Values<typeof logAccessOptions>,
  folder: string,
  options: Options,
): string | undefined {
  if (folder !== '' && values.log !== undefined) throw new UsageError('Name a directory or --log, not both.')
  if (folder !== '') return refuseWithoutLog(values, options)
  const url = logUrl(values)
  if (url === undefined) throw new UsageError('<dir> or --log is required.')
  return url
}

async function asUsage<T>(open: () => Promise<T>): Promise<T> {
  try {
    return await open()
  } catch (error) {
    throw asUsageError(error)
  }
}

/** What is wrong with options is wrong usage. */
function asUsageError(error: unknown): unknown {
  if (error instanceof SpillwayError && error.code === 'CONFIG') return new UsageError(error.message)
  return asDataFailure(error)
}
