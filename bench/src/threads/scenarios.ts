import { problemOf } from './conformance.ts'
import type { Stream } from './contender.ts'
import {
  channel,
  eachInLoop,
  face,
  faceInLoop,
  inLoop,
  message,
  objects,
  ours,
  oursEach,
  twin,
  twinEach,
} from './contenders.ts'
import { aheadOf, sizesOf } from './payload.ts'
import type { ThreadScenario } from './scenario.ts'

const ring = 2 ** 22
const everybody = [ours, oursEach, inLoop, eachInLoop, message, channel, twin, twinEach]
const wakeBytes = 256
/** An event of a broker is in a frame. */
const framed = 256

export const threadScenarios: readonly ThreadScenario[] = [
  streamed(1, 64),
  streamed(1, 256),
  streamed(1, 1024),
  streamed(1, 16_384),
  streamed(3, 64),
  streamed(3, 256),
  {
    ...streamed(1, 256, framed),
    id: 'face-256',
    title: '1 writer, 1 reader, events with 256 B of payload, from `publish` to the subscriber: events that reached it',
    contenders: [face, faceInLoop, objects],
  },
  woken('blocking', 'blocks; messages find it in its event loop', [oursEach, message, twinEach]),
  woken('loop', 'waits in its event loop', [eachInLoop, message, channel]),
  {
    id: 'stalled',
    title: 'Append of 64 B beside a reader that stands still',
    unit: 'ns',
    shows: ['without reader ns', 'to that'],
    contenders: [ours, oursEach],
    measure: async ({ name }, quick) => {
      const { appendBeside } = await import('./contenders/stalled.ts')
      const { stalled, alone } = await appendBeside(name === oursEach, quick ? 50 : 300)
      return { value: stalled, extra: { 'without reader ns': alone, 'to that': stalled / alone } }
    },
  },
]

/** `around`: bytes that a record has beside its payload. */
function streamed(readers: number, size: number, around?: number): ThreadScenario {
  const sizes = sizesOf(size)
  return {
    id: `${readers}-${size}`,
    title: `1 writer, ${readers === 1 ? '1 reader' : `${readers} readers`}, ${size.toLocaleString('en')} B: records that reached everybody`,
    unit: '/s',
    more: true,
    shows: ['MB/s in', 'lost'],
    contenders: everybody,
    measure: async (contender, quick) => {
      const stream: Stream = {
        sizes,
        readers,
        ring,
        paced: true,
        ahead: aheadOf(sizes, ring, around),
        thorough: false,
        records: 0,
        // Shorter ones measure the compiler.
        warmup: 200,
        ms: quick ? 100 : 600,
      }
      const outcome = await contender.stream(stream)
      const problem = problemOf(stream, outcome, contender.loses)
      if (problem) throw new Error(`${contender.name}: ${problem}.`)
      const lost = outcome.accounts.reduce((sum, account) => sum + account.lost, 0)
      return { value: outcome.rate, extra: { 'MB/s in': (outcome.rate * size) / 1e6, lost } }
    },
  }
}

function woken(id: string, how: string, contenders: readonly string[]): ThreadScenario {
  return {
    id: `wake-${id}`,
    title: `Wake p50, one record of ${wakeBytes} B each millisecond; the reader ${how}`,
    unit: 'us',
    shows: ['p99 us'],
    contenders,
    measure: async (contender, quick) => {
      const { p50, p99 } = await contender.wake(quick ? 300 : 1200, wakeBytes)
      return { value: p50, extra: { 'p99 us': p99 } }
    },
  }
}
