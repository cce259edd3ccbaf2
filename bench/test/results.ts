import type { Machine, ResultRecord, SampleRecord } from '../src/results.ts'
import { Results } from '../src/results.ts'

export const machine: Machine = {
  kind: 'machine',
  part: 'a',
  date: '2030-01-02T03:04:05.000Z',
  cpu: 'Test CPU',
  cores: 2,
  memory: 8 * 2 ** 30,
  system: 'Linux 6.1 x64',
  node: '26.10.0',
  packages: { spillway: '0.1.0', rxjs: '7.8.2' },
  rounds: 3,
  quick: false,
}

export function samples(
  scenario: string,
  contender: string,
  role: SampleRecord['role'],
  values: readonly number[],
): SampleRecord[] {
  return values.map((value, round) => ({ kind: 'sample', round, scenario, contender, role, value }))
}

/** A small run: two scenarios, one of them with a contender that cannot do it. */
export function smallRun(): Results {
  const records: ResultRecord[] = [
    machine,
    { kind: 'round', round: 0, load: 1.5 },
    { kind: 'round', round: 1, load: 2.5 },
    { kind: 'scenario', id: 'append', title: 'Append', unit: 'ns' },
    { kind: 'scenario', id: 'replay', title: 'Replay', unit: 'ns' },
    { kind: 'cannot', scenario: 'replay', contender: 'EventEmitter', reason: 'a late reader got 0 of 100 events' },
    ...samples('append', 'spillway', 'ours', [6, 10, 12]),
    ...samples('append', 'EventEmitter', 'peer', [5, 5, 5]),
    ...samples('append', 'floor: array push', 'floor', [2, 4, 4]),
    ...samples('replay', 'spillway', 'ours', [20, 20, 20]),
    ...samples('replay', 'floor: array push', 'floor', [4, 4, 4]),
  ]
  return new Results(records)
}
