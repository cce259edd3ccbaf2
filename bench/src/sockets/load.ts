import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { microseconds } from './event.ts'
import { FrameReader, type Frames, settingsAck } from './h2.ts'
import { Dechunker, Histogram, Scanner } from './scan.ts'

// The load client where native/load.c cannot be compiled. The same commands and answers, on a smaller scale.
const [port = '', mode = '', streamCount = '1', requestHex = '', readyHex = ''] = process.argv.slice(2)
const request = Buffer.from(requestHex, 'hex')
const ready = Buffer.from(readyHex, 'hex')

/** What one stream must see next, and what went wrong in all of them. */
interface Stream {
  last: number
  readonly scanner: Scanner
}

interface Connection {
  readonly socket: Socket
  readonly streams: readonly Stream[]
  readonly stalled: boolean
  ready: boolean
}

let connections: Connection[] = []
let histogram = new Histogram()
let bytes = 0
let opening = 0
const trouble = { lost: 0, repeated: 0, gone: 0, failure: '' }

function open(stalled: boolean, base: number): void {
  opening++
  const socket = connect({ port: Number(port), host: '127.0.0.1', noDelay: true })
  const streams = Array.from({ length: Number(streamCount) }, () => newStream(base))
  const connection: Connection = { socket, streams, stalled, ready: false }
  connections.push(connection)
  const isReady = () => {
    connection.ready = true
    opening--
    if (stalled) socket.pause()
  }
  const take = mode === 'h2' ? frames(socket, streams, isReady) : response(streams[0] as Stream, isReady)
  socket.write(request)
  socket.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    try {
      take(chunk)
    } catch (error) {
      socket.destroy(error as Error)
    }
  })
  socket.on('error', (error) => {
    trouble.failure ||= error.message.replace(/["\\]/g, ' ')
  })
  socket.on('close', () => {
    if (!connections.includes(connection)) return
    if (!connection.ready) opening--
    connections = connections.filter((other) => other !== connection)
    trouble.gone++
    trouble.failure ||= 'the connection was closed'
  })
}

function newStream(last: number): Stream {
  const stream: Stream = {
    last,
    scanner: new Scanner((seq, publishedAt) => {
      histogram.add(Math.max(0, microseconds() - publishedAt))
      if (seq <= stream.last) {
        trouble.repeated++
        return
      }
      trouble.lost += seq - stream.last - 1
      stream.last = seq
    }),
  }
  return stream
}

function response({ scanner }: Stream, isReady: () => void): (chunk: Buffer) => void {
  let head = Buffer.alloc(0)
  let takeBody: ((chunk: Buffer) => void) | undefined
  return (chunk) => {
    if (takeBody) return takeBody(chunk)
    head = Buffer.concat([head, chunk])
    const end = head.indexOf(ready)
    if (end < 0) return
    const text = head.toString('latin1', 0, end)
    if (mode === 'http' && !text.startsWith('HTTP/1.1 200')) throw new Error(`answered ${text.split('\r\n', 1)[0]}`)
    const dechunker = new Dechunker((part) => scanner.scan(part))
    const isChunked = mode === 'http' && /\r\ntransfer-encoding: chunked/i.test(text)
    takeBody = isChunked ? (part) => dechunker.push(part) : (part) => scanner.scan(part)
    isReady()
    takeBody(head.subarray(end + ready.length))
  }
}

function frames(socket: Socket, streams: readonly Stream[], isReady: () => void): (chunk: Buffer) => void {
  const started = new Set<number>()
  const see: Frames = {
    settings: () => void socket.write(settingsAck),
    data(id, part) {
      const at = (id - 1) / 2
      streams[at]?.scanner.scan(part)
      if (started.size === streams.length) return
      started.add(at)
      if (started.size === streams.length) isReady()
    },
  }
  const reader = new FrameReader(see)
  return (chunk) => reader.push(chunk)
}

/** Until `done`, but no longer than `ms`. */
async function until(done: () => boolean, ms: number): Promise<void> {
  const deadline = performance.now() + ms
  while (!done() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 1))
}

async function openAll(stalled: boolean, count: number, base: number, ms: number): Promise<unknown> {
  let left = count
  await until(() => {
    while (left > 0 && opening < 64) {
      open(stalled, base)
      left--
    }
    return left + opening === 0 || trouble.failure !== ''
  }, ms)
  return { open: connections.length, missing: left + opening, ...trouble }
}

async function wait(seq: number, ms: number): Promise<unknown> {
  const short = () =>
    connections
      .filter(({ stalled }) => !stalled)
      .flatMap(({ streams }) => streams)
      .filter(({ last }) => last < seq).length
  await until(() => short() === 0, ms)
  return { short: short(), ...trouble }
}

function stats(): unknown {
  const { count, max } = histogram
  const seen = { events: count, bytes, p50: histogram.quantile(0.5), p99: histogram.quantile(0.99), max, ...trouble }
  histogram = new Histogram()
  bytes = 0
  return seen
}

function closeAll(): unknown {
  const closing = connections
  connections = []
  for (const { socket } of closing) socket.resetAndDestroy()
  return {}
}

async function answer(command: string): Promise<unknown> {
  const [name, ...words] = command.split(' ')
  const [first = 0, second = 0, third = 0] = words.map(Number)
  if (name === 'open' || name === 'stall') return openAll(name === 'stall', first, second, third)
  if (name === 'wait') return wait(first, second)
  if (name === 'stats') return stats()
  if (name === 'close') return closeAll()
  return { failure: 'unknown command' }
}

for await (const command of createInterface(process.stdin)) console.log(JSON.stringify(await answer(command)))
process.exit()
