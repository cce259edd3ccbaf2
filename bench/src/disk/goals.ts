import { extrasOf, type Goal, ratio } from '../goal.ts'
import { file, memory, ours, plain } from './contenders.ts'
import { eventBytes } from './event.ts'

export const diskGoals: readonly Goal[] = [
  {
    number: 'C1a',
    text: '100 publishers in flight: appends per second, against node:sqlite by hand in groups of 100',
    unit: 'x',
    atLeast: 0.7,
    values: ratio('durable-100', ours, 'durable-100', plain),
  },
  {
    number: 'C1b',
    text: 'the same, against a bare file',
    unit: 'x',
    atLeast: 0.4,
    values: ratio('durable-100', ours, 'durable-100', file),
  },
  {
    number: 'C2',
    text: 'replay from disk to a socket, against the same from memory',
    unit: 'x',
    atLeast: 0.8,
    values: ratio('replay-socket', ours, 'replay-socket', memory),
  },
  {
    number: 'C3',
    text: "open with 1,000,000 batches, beyond SQLite's own open",
    unit: 'ms',
    atMost: 100,
    values: (results) => {
      const own = new Map(results.samples('open', plain).map(({ round, value }) => [round, value]))
      return results.samples('open', ours).flatMap(({ round, value }) => {
        const before = own.get(round)
        return before === undefined ? [] : [value - before]
      })
    },
  },
  {
    number: 'C4',
    text: 'event loop delay p99 at full rate, against one commit',
    unit: 'x',
    atMost: 2,
    values: (results) => extrasOf(results, 'delay', ours, 'p99 in commits'),
  },
  {
    number: 'C5',
    text: 'size of the file, against its payloads',
    unit: 'x',
    atMost: 1.35,
    values: (results) => results.samples('size', ours).map(({ value }) => value / eventBytes),
  },
]
