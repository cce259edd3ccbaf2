import type { Measured } from '../../scenario.ts'
import type { SocketContender } from '../contender.ts'
import { nodeHttp, ours, perBurst, perEvent, type SocketScenario } from '../scenario.ts'
import { Stage } from '../stage.ts'

const everybody = [
  ours,
  nodeHttp,
  'better-sse',
  'fastify + @fastify/sse',
  'hono streamSSE',
  'express + res.write',
  'ws',
  'nats-server',
  'redis pub/sub',
]
const few = [ours, nodeHttp, 'better-sse']

/**
 * CPU of the server per event and stream. The next event is published when everybody has got the one before: nothing is
 * saved by joining events that came too fast, and nothing is left undelivered when the clock stops.
 */
export const deliver: readonly SocketScenario[] = [
  {
    id: 'single-1000',
    title: 'One event at a time to 1,000 clients: CPU of the server per delivery',
    contenders: [...everybody, perEvent, 'floor: C, epoll, a write per event'],
    streams: 1000,
    burst: 1,
  },
  {
    id: 'single-10000',
    title: 'One event at a time to 10,000 clients: CPU of the server per delivery',
    contenders: [...few, perEvent, 'floor: C, epoll, a write per event'],
    streams: 10_000,
    burst: 1,
  },
  {
    id: 'burst-1000',
    title: 'Bursts of 10 events in one tick to 1,000 clients: CPU of the server per delivery',
    contenders: [...everybody, perEvent, perBurst, 'floor: C, epoll, a write per burst'],
    streams: 1000,
    burst: 10,
  },
  {
    id: 'burst-10000',
    title: 'Bursts of 10 events in one tick to 10,000 clients: CPU of the server per delivery',
    contenders: [...few, perBurst, 'floor: C, epoll, a write per burst'],
    streams: 10_000,
    burst: 10,
  },
  {
    id: 'http2-1000',
    title: 'One event at a time to 1,000 streams of HTTP/2, 100 on a connection: CPU of the server per delivery',
    contenders: ['spillway, HTTP/2', 'node:http2 stream.write'],
    streams: 1000,
    burst: 1,
  },
].map(delivery)

/** Who is to send how many events in one tick to how many streams. */
interface Delivery extends Pick<SocketScenario, 'id' | 'title' | 'contenders'> {
  readonly streams: number
  readonly burst: number
}

/** A scenario that measures the CPU of the server for each delivery. */
export function delivery({ id, title, contenders, streams, burst }: Delivery): SocketScenario {
  return {
    id,
    title,
    unit: 'us',
    shows: ['p50 ms', 'p99 ms'],
    contenders,
    measure: (contender, quick) => cpuPerDelivery(contender, streams, burst, quick),
  }
}

async function cpuPerDelivery(
  contender: SocketContender,
  streams: number,
  burst: number,
  quick: boolean,
): Promise<Measured> {
  const stage = await Stage.open(contender)
  try {
    await stage.connect(streams)
    const warm = performance.now() + (quick ? 100 : 400)
    for (let n = 0; n < 3 || performance.now() < warm; n++) await stage.deliver(burst)
    await stage.seen()
    const before = await stage.usage()
    const end = performance.now() + (quick ? 200 : 1000)
    let events = 0
    while (events < 3 * burst || performance.now() < end) {
      await stage.deliver(burst)
      events += burst
    }
    const after = await stage.usage()
    const { p50, p99, events: deliveries } = await stage.seen()
    return {
      value: (after.cpu - before.cpu) / deliveries,
      extra: { deliveries, 'p50 ms': p50 / 1000, 'p99 ms': p99 / 1000 },
    }
  } finally {
    await stage.close()
  }
}
