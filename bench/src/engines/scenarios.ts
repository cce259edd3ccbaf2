import { median } from '../stats.ts'
import { Sequence } from './conformance.ts'
import type { EngineContender, EngineId, EngineStore, Site } from './contender.ts'
import {
  bare,
  grouped,
  inPages,
  insert,
  insertParsed,
  notified,
  ours,
  parsed,
  throughBroker,
  unread,
} from './contenders.ts'
import { eventText, eventTexts, numberOf } from './event.ts'
import { OtherServer } from './fleet.ts'
import { appendFor, offer } from './load.ts'
import type { EngineScenario } from './scenario.ts'

const replayed = 100_000
const offered = 1000
const inFlight = 100
const patience = 30_000

const engineNames: Readonly<Record<EngineId, string>> = {
  r1: 'JetStream, one node',
  r3: 'JetStream, three replicas',
  pg: 'PostgreSQL',
}

export const engineScenarios: readonly EngineScenario[] = (['r1', 'r3', 'pg'] as const).flatMap((engine) => [
  append(engine, inFlight, engine === 'pg' ? [ours, insert, notified, grouped] : [ours, bare, unread]),
  append(engine, 1, engine === 'pg' ? [ours, insert, notified] : [ours, bare, unread]),
  replay(
    engine,
    engine === 'pg' ? [ours, throughBroker, insert, insertParsed] : [ours, throughBroker, bare, parsed, inPages],
  ),
  latency(engine, engine === 'pg' ? [ours, notified] : [ours, bare]),
  servers(engine, 2, engine === 'pg' ? [ours, insert] : [ours, bare]),
  servers(engine, 3, engine === 'pg' ? [ours, insert] : [ours, bare]),
])

function append(engine: EngineId, publishers: number, contenders: readonly string[]): EngineScenario {
  return {
    id: `append-${publishers}-${engine}`,
    engine,
    title: `${engineNames[engine]}: appends, ${publishers === 1 ? 'one at a time' : `${publishers} in flight`}`,
    unit: '/s',
    more: true,
    shows: ['p50 us', 'p99 us', 'read ms later'],
    contenders,
    measure: async (contender, site, quick) => {
      const store = await contender.open(site)
      const read = await followed(store)
      const warm = await appendFor(store, contender, publishers, quick ? 50 : 200)
      const { count, perSecond, times } = await appendFor(store, contender, publishers, quick ? 50 : 600)
      const ended = performance.now()
      if (read && !(await read.reaches(warm.count + count, patience))) {
        throw new Error(`Of ${warm.count + count} events, ${read.numbers.length} were read.`)
      }
      const later = performance.now() - ended
      await store.close()
      const [p50, p99] = percentiles(times)
      return { value: perSecond, extra: { 'p50 us': p50, 'p99 us': p99, 'read ms later': read ? later : Number.NaN } }
    },
  }
}

function replay(engine: EngineId, contenders: readonly string[]): EngineScenario {
  return {
    id: `replay-${engine}`,
    engine,
    title: `${engineNames[engine]}: replay of ${replayed.toLocaleString('en')} batches by one reader`,
    unit: '/s',
    more: true,
    contenders,
    events: replayed,
    measure: async (contender, site, quick) => {
      const events = quick ? quickEvents(replayed) : replayed
      const times: number[] = []
      for (let n = 0; n < 2; n++) {
        // A second reader of one server would find pages in its memory.
        const store = await contender.open(site)
        let count = 0
        let last = 0
        const started = performance.now()
        await store.replay((event, place) => {
          if (place <= last) throw new Error(`Event ${numberOf(event)} came out of order.`)
          last = place
          count++
        })
        times.push(performance.now() - started)
        await store.close()
        if (count !== events) throw new Error(`The replay gave ${count} of ${events}.`)
      }
      return { value: events / (median(times) / 1000) }
    },
  }
}

function latency(engine: EngineId, contenders: readonly string[]): EngineScenario {
  return {
    id: `latency-${engine}`,
    engine,
    title: `${engineNames[engine]}: from append at one server to the follower of another, ${offered.toLocaleString('en')}/s offered, p50`,
    unit: 'us',
    shows: ['p99 us'],
    contenders,
    measure: async (contender, site, quick) => {
      const store = await contender.open(site)
      await followed(store)
      const other = await OtherServer.start(contender.name, site)
      await other.ask({ follow: true })
      // The other follows for sure once it has got one.
      await store.append([eventText(0)])
      await other.ask({ arrivals: 1 })
      const count = offered * (quick ? 0.2 : 1.2)
      const sentAt = await offer(store, offered, count)
      const got = await other.ask<{ arrivals: number[]; numbers: number[] }>({ arrivals: count + 1 })
      const arrivals = got.arrivals.slice(1)
      const numbers = got.numbers.slice(1)
      if (numbers.length !== count) throw new Error(`The other server got ${numbers.length} of ${count} events.`)
      const times = numbers.map((number, at) => (arrivals[at] as number) - (sentAt[number - 1] as number))
      other.end()
      await store.close()
      // The first fifth finds everything cold.
      const [p50, p99] = percentiles(times.slice(count / 5))
      return { value: p50, extra: { 'p99 us': p99 } }
    },
  }
}

function servers(engine: EngineId, count: number, contenders: readonly string[]): EngineScenario {
  return {
    id: `servers-${count}-${engine}`,
    engine,
    title: `${engineNames[engine]}: ${count} servers that append to one stream, ${inFlight} in flight each, together`,
    unit: '/s',
    more: true,
    contenders,
    measure: async (contender, site, quick) => {
      // One after the other, so that the first makes what the others find.
      const all: OtherServer[] = []
      for (let n = 0; n < count; n++) all.push(await OtherServer.start(contender.name, site))
      await Promise.all(all.map((server) => server.ask({ follow: true })))
      const appendAll = async (ms: number) => {
        const order = { append: { publishers: inFlight, ms } }
        const done = await Promise.all(all.map((server) => server.ask<{ perSecond: number }>(order)))
        return done.reduce((sum, { perSecond }) => sum + perSecond, 0)
      }
      await appendAll(quick ? 50 : 200)
      const value = await appendAll(quick ? 50 : 600)
      for (const server of all) server.end()
      return { value }
    },
  }
}

/** What a store that follows has told. */
async function followed(store: EngineStore): Promise<Sequence | undefined> {
  if (!store.follow) return undefined
  const sequence = new Sequence()
  await store.follow((text) => sequence.take(numberOf(text)))
  return sequence
}

/** Stores so many events, each by itself where the contender joins what comes at once. */
export async function fill(contender: EngineContender, site: Site, events: number): Promise<void> {
  const store = await contender.open(site)
  const group = 1000
  for (let n = 0; n < events; n += group) {
    const texts = eventTexts(n + 1, Math.min(group, events - n))
    if (contender.joins) await Promise.all(texts.map((text) => store.append([text])))
    else await store.append(texts)
  }
  await store.close()
}

/** A quick run takes this part of the events. */
export const quickEvents = (events: number): number => Math.ceil(events / 20)

function percentiles(times: readonly number[]): [p50: number, p99: number] {
  const sorted = Float64Array.from(times).sort()
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
  return [at(0.5), at(0.99)]
}
