import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nearest } from '../src/cli/errors.ts'
import { Progress } from '../src/cli/progress.ts'
import { duration, size } from '../src/cli/values.ts'
import { parseExact } from '../src/exact-json.ts'
import { LineSplitter, LineTooLong } from '../src/lines.ts'
import { cut, paintFor, plain } from '../src/terminal.ts'

test('durations are plain milliseconds or have a unit', () => {
  const read = (text: string) => duration('--x', text, 0, 1e12)
  assert.deepEqual(
    ['250', '250ms', '10s', '5m', '2h', '3d', '1.5s'].map(read),
    [250, 250, 10_000, 300_000, 7_200_000, 259_200_000, 1500],
  )
  for (const bad of ['', ' 1', '1 s', '1S', '-1', '1e3', 'NaN', 'Infinity', '1.5', '99999999d', '1constructor']) {
    assert.throws(() => read(bad), { name: 'UsageError', message: /^--x must be milliseconds/ }, bad)
  }
})

test('sizes are plain bytes or have a unit', () => {
  const read = (text: string) => size('--x', text, 1, 2 ** 40)
  assert.deepEqual(['7', '1k', '512K', '64m', '1g'].map(read), [7, 1024, 524_288, 67_108_864, 1_073_741_824])
  for (const bad of ['0', '1kb', 'k', '2000g']) assert.throws(() => read(bad), { name: 'UsageError' }, bad)
})

test('the nearest name is offered, but not any name', () => {
  const names = ['serve', 'publish', 'tail', 'status']
  assert.equal(nearest('stat', names), 'status')
  assert.equal(nearest('publsih', names), 'publish')
  assert.equal(nearest('zzzzzz', names), undefined)
  assert.equal(nearest('x', names), undefined)
})

test('what strangers write cannot steer the terminal', () => {
  assert.equal(plain('a\u001b[2J\u009b\n\u202e\u2028é'), 'a\\u001b[2J\\u009b\\u000a\\u202e\\u2028é')
  assert.equal(plain('\ud800'), '\\ud800')
})

test('text is cut to the columns of the terminal', () => {
  assert.equal(cut('abcdef', 6), 'abcdef')
  assert.equal(cut('abcdef', 5), 'abcd…')
  assert.equal(cut('日本語', 6), '日本語')
  assert.equal(cut('日本語', 5), '日本…')
  assert.equal(cut('abc', Number.POSITIVE_INFINITY), 'abc')
})

test('colours are for terminals whose user wants them', () => {
  assert.equal(paintFor({ isTTY: true }, {})('red', 'x'), '\u001b[31mx\u001b[0m')
  assert.equal(paintFor({ isTTY: true }, { NO_COLOR: '1' })('red', 'x'), 'x')
  assert.equal(paintFor({}, {})('red', 'x'), 'x')
})

test('numbers are printed as they were written', () => {
  const text = '{"time":1600000000000000001,"small":1.50,"plain":[1,-2.5e3,"1600000000000000001"]}'
  assert.equal(
    JSON.stringify(parseExact(text)),
    '{"time":1600000000000000001,"small":1.50,"plain":[1,-2.5e3,"1600000000000000001"]}',
  )
})

test('lines are found wherever their bytes are cut', () => {
  const bytes = Buffer.from('one\n\ntwo: é\nrest')
  for (let at = 0; at <= bytes.length; at++) {
    const splitter = new LineSplitter(100)
    const lines = [...splitter.push(bytes.subarray(0, at)), ...splitter.push(bytes.subarray(at))]
    assert.deepEqual(
      [...lines, splitter.rest()].map((line) => Buffer.from(line ?? '').toString()),
      ['one', '', 'two: é', 'rest'],
    )
    assert.equal(splitter.rest(), undefined)
  }
})

test('a line beyond the limit is refused after those before it, whether it ends or not', () => {
  for (const text of ['ok\n123456\n', 'ok\n123456']) {
    const lines = new LineSplitter(5).push(Buffer.from(text))
    assert.equal(Buffer.from(lines.next().value ?? '').toString(), 'ok')
    assert.throws(() => lines.next(), LineTooLong)
  }
  assert.equal([...new LineSplitter(5).push(Buffer.from('12345\n'))].length, 1)
})

test('progress is shown on a terminal, after a second, five times a second, and goes away', () => {
  let time = 0
  let written = ''
  const write = (text: string) => {
    written += text
  }
  const progress = new Progress({ isTTY: true, columns: 10, write }, () => time)
  for (const [now, text] of [
    [999, 'early'],
    [1000, 'first'],
    [1100, 'soon'],
    [1200, 'a line that is too long'],
  ] as const) {
    time = now
    progress.show(text)
  }
  progress.clear()
  progress.clear()
  assert.equal(written, '\r\u001b[Kfirst\r\u001b[Ka line t…\r\u001b[K')

  written = ''
  const wide = new Progress({ isTTY: true, columns: 60, write }, () => time)
  time += 1000
  wide.show('half of it', 0.5)
  assert.equal(written, '\r\u001b[K[############............]  50% half of it')

  written = ''
  const piped = new Progress({ write }, () => time)
  time = 10_000
  piped.show('nobody looks')
  piped.clear()
  assert.equal(written, '')
})
