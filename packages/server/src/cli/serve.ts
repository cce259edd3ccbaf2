import { availableParallelism } from 'node:os'
import path from 'node:path'
import { type Log, SpillwayError } from 'spillway'
import { type SqliteLog, type SqliteLogOptions, sqliteLog } from 'spillway/log/sqlite'
import type { Engine } from '../engine/engine.ts'
import { isHostName } from '../hosts.ts'
import { humanLog, jsonLog, type ServerLog } from '../log.ts'
import { isLoopback } from '../loopback.ts'
import { createServer, type ServerOptions } from '../server.ts'
import { plain } from '../terminal.ts'
import { accessOptions, openAccess } from './access.ts'
import { type Command, defineCommand, type Values } from './command.ts'
import { asDataFailure, dataFile, makeFolder, span } from './data-file.ts'
import { Failure, quoted, UsageError } from './errors.ts'
import {
  type EngineWish,
  logAccessOptions,
  logKeepOptions,
  logServeOptions,
  openEngine,
  readEngine,
} from './log-options.ts'
import { choice, duration, integer, size } from './values.ts'

const mostMs = 2 ** 31 - 1
const mostThings = 2 ** 31 - 1
const mostThreads = 64
/** Ten years. */
const mostAge = 3650 * 86_400_000
const mostBytes = 2 ** 40

const defaultData = './spillway-data'

const options = {
  port: { type: 'string', value: '<n>', help: 'Port to listen on; 0 takes any that is free. Default: 4747' },
  host: { type: 'string', value: '<address>', help: 'Address to listen on. Default: 127.0.0.1, this machine only' },
  capacity: { type: 'string', value: '<n>', help: 'Batches kept in memory. Default: 10000' },
  'max-bytes': { type: 'string', value: '<size>', help: 'Bytes of events kept in memory. Default: 64m' },
  'max-age': {
    type: 'string',
    value: '<time>',
    help: 'With --memory: how long events are kept. Default: no limit. On disk it is --keep-age',
  },
  data: {
    type: 'string',
    value: '<dir>',
    help: `Keep history on disk, in this directory, which is made if need be. Default: ${defaultData}`,
  },
  memory: { type: 'boolean', help: 'Keep history in memory only; it ends with the server.' },
  ...logAccessOptions,
  ...logKeepOptions,
  ...logServeOptions,
  durability: {
    type: 'string',
    value: '<level>',
    help: 'What history survives: "power", a power cut; "process", the end of a process; with --log also "machine", the loss of one with its disk. Default: power; with --log machine for 3 replicas or more, else process',
  },
  keep: { type: 'string', value: '<n>', help: 'Batches kept on disk, or by --log. Default: no limit' },
  'keep-bytes': { type: 'string', value: '<size>', help: 'Bytes of events kept on disk, or by --log. Default: 1g' },
  'keep-age': {
    type: 'string',
    value: '<time>',
    help: 'How long events are kept on disk, or by --log. Default: no limit',
  },
  heartbeat: {
    type: 'string',
    value: '<time>',
    help: 'A sign of life after this much silence, up to 30s. Default: 15s',
  },
  'stall-timeout': {
    type: 'string',
    value: '<time>',
    help: 'A reader that takes no bytes for this long is cut off. Default: 30s; 40s for Nomad clients',
  },
  'stream-age': {
    type: 'string',
    value: '<time>',
    help: 'A stream is ended after this long, less up to a tenth; readers resume exactly. Default: 15m',
  },
  'max-streams': {
    type: 'string',
    value: '<n>',
    help: 'Streams that may be open at once, over HTTP and WebSockets. Default: 20000',
  },
  'max-streams-per-subject': {
    type: 'string',
    value: '<n>',
    help: 'Streams that may be open at once for one subject. Default: no limit',
  },
  cors: {
    type: 'string',
    multiple: true,
    value: '<origin>',
    help: 'An origin whose pages may use the server, such as https://app.example; repeatable. "*": any, without cookies',
  },
  'max-streams-per-address': {
    type: 'string',
    value: '<n>',
    help: 'Streams that may be open at once from one address. Default: no limit',
  },
  'max-connections': { type: 'string', value: '<n>', help: 'Connections that may be open at once. Default: 25000' },
  'max-publish-rate': {
    type: 'string',
    value: '<n>',
    help: 'Events a second that one subject may publish, an address where there is no token. Default: no limit',
  },
  'max-batch': { type: 'string', value: '<n>', help: 'Events that one published batch may have. Default: 10000' },
  'max-payload': {
    type: 'string',
    value: '<n>',
    help: 'Characters that the payload of a published event may have. Default: as --max-body',
  },
  'max-body': { type: 'string', value: '<size>', help: 'Bytes that one publish request may have. Default: 1m' },
  threads: {
    type: 'string',
    value: '<n>',
    help: 'Threads that serve HTTP beside the one that publishes, up to 64; "auto": one for each core but one, and one at least. Default: the thread that publishes serves, too',
  },
  ...accessOptions,
  cookie: {
    type: 'string',
    value: '<name>',
    help: 'A cookie that holds the token where no header does, for browsers. Default: cookies are not looked at',
  },
  'allow-host': {
    type: 'string',
    multiple: true,
    value: '<name>',
    help: 'A name under which the server may be asked, beside its address; repeatable. Default: on 127.0.0.1 its usual names, elsewhere any',
  },
  'trust-proxy': {
    type: 'boolean',
    help: 'A proxy before the server says in X-Forwarded-For whom it speaks for: limits and the log go by that.',
  },
  source: {
    type: 'string',
    value: '<name>',
    help: '"host" publishes the counters of this machine once a second. Default: none',
  },
  json: { type: 'boolean', help: 'Log JSON lines to standard output. Default: short lines to standard error' },
} as const

/** `spillway serve`. */
export const serve: Command = defineCommand({
  name: 'serve',
  summary: 'Start a server: publish to it and follow it over HTTP.',
  usage: ['spillway serve [options]'],
  options,
  notes: [
    'A <time> is in milliseconds, or written as 10s, 5m, 2h, 3d. A <size> is in bytes, or written as 512k, 64m, 1g.',
    'Memory holds the newest events and the disk what is older. One server at a time has a directory. `spillway inspect`, `export` and `import` work with it.',
    'With --log any number of servers serve one history: publish to any, read from any, resume at another. What limits streams and rates, and tickets, each server has of its own. SPILLWAY_LOG says the same as --log and is not shown by `ps`.',
    'Without --auth whoever reaches the port reads and publishes. Tokens are made by `spillway token create`; docs/access.md says what they may do.',
    'SIGTERM or SIGINT (ctrl-C) tells readers to come back later and ends the server within 5 seconds; a second one ends it at once.',
  ],
  examples: [
    'spillway serve --source host',
    'spillway serve --memory --port 8080 --capacity 100000 --max-age 2h',
    'spillway serve --data /var/lib/spillway --keep-age 30d',
    'spillway serve --log nats://10.0.0.1:4222,nats://10.0.0.2:4222 --replicas 3',
    'spillway serve --auth tokens --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem',
    'spillway serve --auth jwt --jwt-issuer https://id.example/ --jwt-audience me --jwt-keys keys.json',
    'spillway serve --threads auto --max-connections 100000',
    'spillway serve --json > spillway.log',
  ],
  run: runServer,
})

async function runServer(values: Values<typeof options>): Promise<number> {
  const port = integer('--port', values.port ?? '4747', 0, 65_535)
  const host = values.host ?? '127.0.0.1'
  if (host === '') throw new UsageError('--host must be an address to listen on, got "".')
  const serverOptions = read(values)
  const wish = readEngine(values)
  const log = values.json ? jsonLog() : humanLog()
  // A closed pipe must not end the server, whatever it was going to say.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})

  // Before anybody is told where it listens, since they may end it at once.
  const signalled = nextSignal()
  const access = await openAccess(values, log)
  // An engine may be waited for.
  const opened = await Promise.race([openHistory(values, wish, log), signalled.then(() => undefined)])
  if (!opened) process.exit(0)
  const { history, engine, place } = opened
  const server = createServer({ ...serverOptions, ...access, history, engine, log })
  const url = await server.listen({ port, host }).catch(async (error: unknown) => {
    await server.close()
    throw new Failure(listenProblem(error, host, port), { cause: error })
  })
  announce(url, place, values.json, log)
  if (!isLoopback(host) && !access.auth) {
    log.warn(`Without access control, everybody who reaches ${host} on this port may read and publish`, { host })
  }
  log.info('stopping: readers are told to come back later', { signal: await signalled })
  await server.close()
  log.info('stopped')
  // The answer to a signal must not depend on what some library may still hold.
  process.exit(0)
}

/** Where history is kept. */
interface History {
  readonly history: Log | undefined
  readonly engine: Engine | undefined
  /** For people; `undefined`: in memory. */
  readonly place: string | undefined
}

async function openHistory(
  values: Values<typeof options>,
  wish: EngineWish | undefined,
  log: ServerLog,
): Promise<History> {
  if (wish) {
    const engine = await openEngine(wish, log)
    return { history: undefined, engine, place: engine.place }
  }
  const history = await openDisk(values, log)
  return { history, engine: undefined, place: history && path.resolve(history.path) }
}

/** Opens what `--data` names. Throws `Failure` that says why it cannot be used. */
async function openDisk(values: Values<typeof options>, log: ServerLog): Promise<SqliteLog | undefined> {
  const { data = defaultData, memory, durability, keep, 'keep-bytes': keepBytes, 'keep-age': keepAge } = values
  if (memory) {
    for (const name of ['data', 'durability', 'keep', 'keep-bytes', 'keep-age'] as const) {
      if (values[name] !== undefined)
        throw new UsageError(`--${name} is for history on disk, --memory keeps none there.`)
    }
    return undefined
  }
  if (values['max-age'] !== undefined) throw new UsageError('--max-age is for --memory. On disk it is --keep-age.')
  if (data === '') throw new UsageError('--data must be a directory, got "".')
  const kept: SqliteLogOptions = { path: dataFile(data) }
  if (durability !== undefined) kept.durability = choice('--durability', durability, ['power', 'process'])
  if (keep !== undefined) kept.capacity = integer('--keep', keep, 1, Number.MAX_SAFE_INTEGER)
  if (keepBytes !== undefined) kept.maxBytes = size('--keep-bytes', keepBytes, 1, Number.MAX_SAFE_INTEGER)
  if (keepAge !== undefined) kept.maxAge = duration('--keep-age', keepAge, 1, mostAge)
  makeFolder(data, `--data ${data}`)
  try {
    const history = await sqliteLog(kept)
    if (history.lost) {
      const { after, last } = history.lost
      const lost = span({ after, before: last + 1 })
      log.warn(`History is damaged: ${lost} of ${history.path} are lost. Readers that missed them are told`, {
        after,
        last,
      })
    }
    return history
  } catch (error) {
    const isUnusable = error instanceof SpillwayError && error.code === 'LOG_UNUSABLE'
    throw asDataFailure(error, isUnusable ? ' --memory keeps history in memory only.' : '')
  }
}

/** Options that are numbers, and what the server calls them. */
const counts = [
  ['max-streams', 'maxStreams'],
  ['max-streams-per-subject', 'maxStreamsPerSubject'],
  ['max-streams-per-address', 'maxStreamsPerAddress'],
  ['max-connections', 'maxConnections'],
  ['max-publish-rate', 'maxPublishRate'],
  ['max-batch', 'maxBatch'],
  ['max-payload', 'maxPayload'],
] as const

function read(values: Values<typeof options>): ServerOptions {
  const read: ServerOptions = {}
  const { capacity, 'max-bytes': maxBytes, 'max-age': maxAge, heartbeat, 'stall-timeout': stallTimeout } = values
  if (capacity !== undefined) read.capacity = integer('--capacity', capacity, 1, 2 ** 24)
  if (maxBytes !== undefined) read.maxBytes = size('--max-bytes', maxBytes, 1, mostBytes)
  if (maxAge !== undefined) read.maxAge = duration('--max-age', maxAge, 1, mostAge)
  if (heartbeat !== undefined) read.heartbeat = duration('--heartbeat', heartbeat, 100, 30_000)
  if (stallTimeout !== undefined) read.stallTimeout = duration('--stall-timeout', stallTimeout, 1, mostMs)
  const { 'stream-age': streamAge } = values
  if (streamAge !== undefined) read.streamAge = duration('--stream-age', streamAge, 1000, mostMs)
  for (const [name, option] of counts) {
    const value = values[name]
    if (value !== undefined) read[option] = integer(`--${name}`, value, 1, mostThings)
  }
  if (values['max-body'] !== undefined) read.maxBody = size('--max-body', values['max-body'], 1, 2 ** 30)
  if (values.threads !== undefined) read.threads = threadsOf(values.threads)
  if (values.cors !== undefined) read.cors = values.cors.includes('*') ? '*' : values.cors
  if (values.cookie !== undefined) read.cookie = values.cookie
  for (const name of values['allow-host']) {
    if (!isHostName(name)) throw new UsageError(`--allow-host must be a name without a port, got ${quoted(name)}.`)
  }
  if (values['allow-host'].length > 0) read.hosts = values['allow-host']
  if (values['trust-proxy']) read.trustProxy = true
  if (values.source !== undefined) read.source = choice('--source', values.source, ['host', 'none'])
  return read
}

function threadsOf(value: string): number {
  return value === 'auto'
    ? Math.min(Math.max(availableParallelism() - 1, 1), mostThreads)
    : integer('--threads', value, 0, mostThreads)
}

function announce(url: string, place: string | undefined, json: boolean, log: ServerLog): void {
  if (json) {
    log.info('listening', { url, history: place ?? null })
    return
  }
  process.stdout.write(
    `${[
      `Spillway listens on ${url}`,
      `  in a browser     ${url}/`,
      `  in a terminal    spillway tail --url ${url} --from earliest`,
      `  with curl        curl -N '${url}/v1/events?from=earliest'`,
      `  history          ${place === undefined ? 'in memory, until the server ends' : `in ${plain(place)}`}`,
    ].join('\n')}\n`,
  )
}

function listenProblem(error: unknown, host: string, port: number): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'EADDRINUSE')
    return `Port ${port} of ${host} is in use. Stop the program that has it, or choose another with --port (0 takes any).`
  if (code === 'EACCES') return `Port ${port} of ${host} is not for this user. Choose one above 1023 with --port.`
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') return `--host ${host} is not an address of this machine.`
  return `Cannot listen on port ${port} of ${host}: ${message}`
}

/** Resolves with the first signal that asks to stop; a second one ends the process at once, with 1. */
function nextSignal(): Promise<string> {
  return new Promise((resolve) => {
    let stopping = false
    const stop = (name: string) => {
      if (stopping) process.exit(1)
      stopping = true
      resolve(name)
    }
    process.on('SIGTERM', stop)
    process.on('SIGINT', stop)
  })
}
