import { extrasOf, type Goal, ratio } from '../goal.ts'
import { eachInLoop, message, ours, oursEach, twin } from './contenders.ts'

const limit = (number: string, text: string, bound: Pick<Goal, 'atLeast' | 'atMost'>, values: Goal['values']): Goal => {
  return { number, text, unit: 'x', ...bound, values }
}

const overMessages = (number: string, scenario: string, text: string, atLeast: number, contender = ours): Goal => {
  return limit(
    number,
    `${text}, against postMessage(string)`,
    { atLeast },
    ratio(scenario, contender, scenario, message),
  )
}

const toTwin = (number: string, scenario: string, text: string, atLeast: number): Goal => {
  return limit(number, `${text}, against the C11 twin`, { atLeast }, ratio(scenario, ours, scenario, twin))
}

// D4 is B8, among the sockets. What D3a allows is noise: the writer of a ring has nothing to wait for.
export const threadGoals: readonly Goal[] = [
  overMessages('D1a', '1-64', '1 reader, 64 B', 25),
  overMessages('D1b', '1-256', '1 reader, 256 B', 25),
  overMessages('D1c', '1-1024', '1 reader, 1 KiB', 15),
  overMessages('D1d', '3-64', '3 readers, 64 B', 40),
  overMessages('D1e', '3-256', '3 readers, 256 B', 40),
  overMessages('D1f', '1-64', '1 reader, 64 B, published per record', 10, oursEach),
  overMessages('D1g', '1-256', '1 reader, 256 B, published per record', 10, oursEach),
  overMessages('D1h', '1-1024', '1 reader, 1 KiB, published per record', 10, oursEach),
  toTwin('D2a', '1-64', '1 reader, 64 B', 0.4),
  toTwin('D2b', '1-256', '1 reader, 256 B', 0.6),
  toTwin('D2c', '1-1024', '1 reader, 1 KiB', 0.9),
  toTwin('D2d', '1-16384', '1 reader, 16 KiB', 0.9),
  limit(
    'D3a',
    'append beside a reader that stands still, against no reader (the writer never waits)',
    { atMost: 1.25 },
    (results) => extrasOf(results, 'stalled', ours, 'to that'),
  ),
  limit(
    'D3b',
    'wake p50 in the event loop, against postMessage',
    { atMost: 1.2 },
    ratio('wake-loop', eachInLoop, 'wake-loop', message),
  ),
  limit(
    'D3c',
    'wake p50 of a reader that blocks, against postMessage',
    { atMost: 0.8 },
    ratio('wake-blocking', oursEach, 'wake-blocking', message),
  ),
]
