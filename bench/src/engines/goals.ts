import { type Goal, ratio } from '../goal.ts'
import type { EngineId } from './contender.ts'
import { bare, inPages, insert, insertParsed, notified, ours, parsed, throughBroker } from './contenders.ts'

const limit = { unit: 'x', atMost: 1.3 }
const engines: readonly (readonly [letter: string, engine: EngineId, name: string])[] = [
  ['a', 'r1', 'JetStream with one node'],
  ['b', 'r3', 'JetStream with three replicas'],
  ['c', 'pg', 'PostgreSQL'],
]

/** Time for each, against that of another: both are events per second. */
const cost = (scenario: string, contender: string, other: string) => ratio(scenario, other, scenario, contender)

export const engineGoals: readonly Goal[] = [
  ...engines.map(([letter, engine, name]): Goal => {
    const client = engine === 'pg' ? insert : bare
    const text = `time of an append with 100 in flight, against the bare client, ${name}`
    return { number: `E1${letter}`, text, ...limit, values: cost(`append-100-${engine}`, ours, client) }
  }),
  ...engines.map(([letter, engine, name]): Goal => {
    const client = engine === 'pg' ? notified : bare
    const text = `time of an append, one at a time, against the bare client that tells readers, ${name}`
    return { number: `E2${letter}`, text, ...limit, values: cost(`append-1-${engine}`, ours, client) }
  }),
  {
    number: 'E2d',
    text: 'time of an append, one at a time, against the bare client that tells nobody, PostgreSQL',
    ...limit,
    values: cost('append-1-pg', ours, insert),
  },
  ...engines.flatMap(([letter, engine, name]): Goal[] => {
    const scenario = `replay-${engine}`
    const [pages, stream] = engine === 'pg' ? [insert, insertParsed] : [inPages, parsed]
    return [
      {
        number: `E3${letter}1`,
        text: `time of a replay by pages of the log, against pages of the bare client, ${name}`,
        ...limit,
        values: cost(scenario, ours, pages),
      },
      {
        number: `E3${letter}2`,
        text: `time of a replay by a broker's subscription, against the bare client at its best, both parse, ${name}`,
        ...limit,
        values: cost(scenario, throughBroker, stream),
      },
    ]
  }),
  ...engines.map(([letter, engine, name]): Goal => {
    const client = engine === 'pg' ? notified : bare
    const text = `latency p50 from append to the follower of another server, against the bare client, ${name}`
    const scenario = `latency-${engine}`
    return { number: `E4${letter}`, text, ...limit, values: ratio(scenario, ours, scenario, client) }
  }),
]
