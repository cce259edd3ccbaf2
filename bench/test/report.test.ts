import assert from 'node:assert/strict'
import { test } from 'node:test'
import { markdownReport, short, terminalReport } from '../src/report.ts'
import { parseResults, Results } from '../src/results.ts'
import { machine, samples, smallRun } from './results.ts'

test('the page names machine, versions, date and source', () => {
  const page = markdownReport([{ results: smallRun(), source: 'run.jsonl' }])
  for (const part of [
    'Test CPU',
    'Node 26.10.0',
    'rxjs 7.8.2',
    '2030-01-02',
    'bench/results/run.jsonl',
    'npm run bench',
  ]) {
    assert.ok(page.includes(part), part)
  }
})

test('the page shows medians, ranges, factors and who cannot', () => {
  const page = markdownReport([{ results: smallRun(), source: 'run.jsonl' }])
  assert.ok(page.includes('| spillway | 10.0 | 6.00 - 12.0 | 2.50x | 2.00x |'))
  assert.ok(page.includes('| EventEmitter | cannot | a late reader got 0 of 100 events |  |  |'))
})

test('what else was seen stands beside the figure, as a median', () => {
  const results = new Results([
    { ...machine, part: 'b' },
    { kind: 'scenario', id: 'rate', title: 'Rate', unit: '/s', more: true, shows: ['p99 ms', 'RSS MB'] },
    ...samples('rate', 'spillway', 'ours', [100, 300, 200]).map((sample, n) => ({
      ...sample,
      extra: { 'p99 ms': [5, 9, 7][n] ?? 0, 'RSS MB': 60 },
    })),
  ])
  const page = markdownReport([{ results, source: 'run.jsonl' }])
  assert.ok(
    page.includes(
      '| contender | /s (more is better) | range | to the best floor | to the best peer | p99 ms | RSS MB |',
    ),
  )
  assert.ok(page.includes('| spillway | 200 | 100 - 300 |  |  | 7.00 | 60.0 |'))
  assert.match(terminalReport(results), /spillway +200 \/s +100 - 300 .* 7\.00 +60\.0$/m)
})

test('goals are shown as met or missed, losses with their factor', () => {
  const text = terminalReport(smallRun())
  assert.match(text, /1 met, 2 missed, \d+ not measured/)
  assert.match(text, /A1a +met +3\.00x/)
  assert.match(text, /A6 +MISSED +5\.00x/)
  assert.match(text, /append: spillway is behind EventEmitter by 2\.00x$/m)
})

test('a part without goals has no table of them', () => {
  const results = new Results([
    { ...machine, part: 'w' },
    { kind: 'scenario', id: 'path-single', title: 'Single', unit: 'us' },
    ...samples('path-single', 'socket.write per tick (16 KiB)', 'ours', [3]),
  ])
  const page = markdownReport([{ results, source: 'run.jsonl' }])
  assert.ok(page.includes('## W. Write paths'))
  assert.ok(!page.includes('### Goals'))
  assert.ok(!terminalReport(results).includes('Goals:'))
})

test('a run beside other work says so', () => {
  assert.match(terminalReport(smallRun()), /Load average 1\.50 - 2\.50 on 2 cores\.$/)
  const busy = new Results([machine, { kind: 'round', round: 0, load: 9 }])
  assert.match(terminalReport(busy), /on 2 cores\. Others were at work/)
})

test('a run that was cut short says so', () => {
  const cut = new Results([machine, { kind: 'round', round: 0, load: 1 }, { kind: 'leftOut', count: 4 }])
  assert.match(terminalReport(cut), /over before the last 4 measurements of the last round\.$/)
})

test('numbers keep three digits', () => {
  assert.deepEqual([0, 0.05, 3.456, 45.67, 2557151].map(short), ['0', '0.05', '3.46', '45.7', '2,557,151'])
})

test('a result file is read line by line', () => {
  assert.equal(parseResults(`${JSON.stringify(machine)}\n\n`).machine.cpu, 'Test CPU')
  assert.throws(() => parseResults(''), /no line about the machine/)
})
