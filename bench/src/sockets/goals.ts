import { extrasOf, type Goal, ratio, valuesOf } from '../goal.ts'
import { inThread, nodeHttp, ours, perBurst, perEvent } from './scenario.ts'

// The original is written in Go and not part of this run. Measured once beside a bare `net` server, one write per event,
// it took 12.3 us per delivery and `net` 9.9.
const originalOfNet = 12.3 / 9.9

const sizes = ['1000', '10000']
const idleSizes = ['1000', '5000']

export const socketGoals: readonly Goal[] = [
  ...sizes.flatMap((size, n): readonly Goal[] => [
    {
      number: `B1${'ae'[n]}`,
      text: `one event at a time, ${grouped(size)} clients: CPU, against bare net`,
      unit: 'x',
      atMost: 1.05,
      values: ratio(`single-${size}`, ours, `single-${size}`, perEvent),
    },
    {
      number: `B1${'bf'[n]}`,
      text: `the same, less than better-sse`,
      unit: 'x',
      atLeast: 2.2,
      values: ratio(`single-${size}`, 'better-sse', `single-${size}`, ours),
    },
    {
      number: `B1${'cg'[n]}`,
      text: `the same, less than node:http res.write`,
      unit: 'x',
      atLeast: 1.7,
      values: ratio(`single-${size}`, nodeHttp, `single-${size}`, ours),
    },
    {
      number: `B1${'dh'[n]}`,
      text: `the same, less than the original in Go (quoted as ${originalOfNet.toFixed(2)}x bare net, not measured here)`,
      unit: 'x',
      atLeast: 1.15,
      values: (results) =>
        ratio(`single-${size}`, perEvent, `single-${size}`, ours)(results).map((value) => value * originalOfNet),
    },
  ]),
  ...sizes.flatMap((size, n): readonly Goal[] => [
    {
      number: `B2${'ae'[n]}`,
      text: `bursts of 10, ${grouped(size)} clients: CPU, against bare net with a write per burst`,
      unit: 'x',
      atMost: 1.05,
      values: ratio(`burst-${size}`, ours, `burst-${size}`, perBurst),
    },
    {
      number: `B2${'bf'[n]}`,
      text: 'the same, less than better-sse',
      unit: 'x',
      atLeast: 8,
      values: ratio(`burst-${size}`, 'better-sse', `burst-${size}`, ours),
    },
    {
      number: `B2${'cg'[n]}`,
      text: 'the same, less than node:http res.write',
      unit: 'x',
      atLeast: 2,
      values: ratio(`burst-${size}`, nodeHttp, `burst-${size}`, ours),
    },
    {
      number: `B2${'dh'[n]}`,
      text: 'the same, less than the original in Go (there is no clean figure to quote)',
      unit: 'x',
      atLeast: 1.5,
      values: () => [],
    },
  ]),
  {
    number: 'B3a',
    text: 'highest rate that 1,000 clients get completely, against better-sse',
    unit: 'x',
    atLeast: 10,
    values: ratio('rate-1000', ours, 'rate-1000', 'better-sse'),
  },
  {
    number: 'B3b',
    text: 'the same, against node:http res.write',
    unit: 'x',
    atLeast: 5,
    values: ratio('rate-1000', ours, 'rate-1000', nodeHttp),
  },
  {
    number: 'B3c',
    text: 'resident memory at that rate',
    unit: 'MB',
    atMost: 80,
    values: (results) => extrasOf(results, 'rate-1000', ours, 'RSS MB'),
  },
  {
    number: 'B4',
    text: '20 events/s to 1,000 clients: p99, against bare net',
    unit: 'x',
    atMost: 1.2,
    values: ratio('latency-1000', ours, 'latency-1000', perEvent),
  },
  ...idleSizes.flatMap((size, n): readonly Goal[] => [
    {
      number: `B5${'ac'[n]}`,
      text: `memory per idle client of ${grouped(size)}, against a bare node:http response`,
      unit: 'x',
      atMost: 1.3,
      values: ratio(`idle-${size}`, ours, `idle-${size}`, nodeHttp),
    },
    {
      number: `B5${'bd'[n]}`,
      text: 'the same, against better-sse',
      unit: 'x',
      atMost: 0.6,
      values: ratio(`idle-${size}`, ours, `idle-${size}`, 'better-sse'),
    },
  ]),
  {
    number: 'B6a',
    text: "10 % stalled clients: the others' p99, against the same without them",
    unit: 'x',
    atMost: 1.2,
    values: (results) => extrasOf(results, 'stalled', ours, 'p99 factor'),
  },
  {
    number: 'B6b',
    text: 'resident memory per stalled client (64 KiB)',
    unit: 'kB',
    atMost: 65.5,
    values: (results) => valuesOf(results, 'stalled', ours),
  },
  {
    number: 'B7',
    text: 'HTTP/2, 100 streams on a connection: CPU per delivery, less than HTTP/1.1',
    unit: 'x',
    atLeast: 1.5,
    values: ratio('single-1000', ours, 'http2-1000', 'spillway, HTTP/2'),
  },
  {
    number: 'B8a',
    text: '1,000 events/s to 200 clients with HTTP in a thread: time in which the publishing thread is busy (D4)',
    unit: '%',
    atMost: 6,
    values: (results) => valuesOf(results, 'busy-200', inThread),
  },
  {
    number: 'B8b',
    text: 'the same: deliveries at that rate, against one thread (D4)',
    unit: 'x',
    // Both get the same events in the same time, but for how long the last ones take.
    atLeast: 0.99,
    values: (results) => {
      const [threaded, alone] = [inThread, ours].map((name) => extrasOf(results, 'busy-200', name, 'deliveries/s'))
      return (threaded ?? []).map((value, round) => value / (alone?.[round] ?? Number.NaN))
    },
  },
]

function grouped(count: string): string {
  return Number(count).toLocaleString('en')
}
