import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eventBytes, eventText, microseconds, sseText } from '../../src/sockets/event.ts'
import { Dechunker, Histogram, Scanner } from '../../src/sockets/scan.ts'

test('an event has 200 bytes of JSON, and is found with the time of its publishing', () => {
  const before = microseconds()
  const text = eventText(7)
  assert.equal(Buffer.byteLength(text), eventBytes)
  assert.equal(typeof JSON.parse(text).m, 'string')
  const seen: number[][] = []
  new Scanner((...found) => seen.push(found)).scan(Buffer.from(sseText(7, text)))
  const [[seq, publishedAt = 0] = []] = seen
  assert.equal(seq, 7)
  assert.ok(publishedAt >= before && publishedAt <= microseconds())
})

test('markers are found wherever the bytes are cut', () => {
  // A tilde before a marker and one in a WebSocket frame's length are not its beginning.
  const stream = Buffer.from(`~${eventText(1)}~~~${eventText(2)}\u007e\u0000${eventText(3)}`)
  for (let size = 1; size <= stream.length; size++) {
    const seen: number[] = []
    const scanner = new Scanner((seq) => seen.push(seq))
    for (let at = 0; at < stream.length; at += size) scanner.scan(stream.subarray(at, at + size))
    assert.deepEqual(seen, [1, 2, 3], `in pieces of ${size}`)
  }
})

test('chunks are joined wherever the bytes are cut', () => {
  const body = Buffer.from('5\r\nhello\r\n1;name=value\r\n \r\nA\r\n0123456789\r\n')
  for (let size = 1; size <= body.length; size++) {
    let text = ''
    const dechunker = new Dechunker((bytes) => {
      text += bytes
    })
    for (let at = 0; at < body.length; at += size) dechunker.push(body.subarray(at, at + size))
    assert.equal(text, 'hello 0123456789', `in pieces of ${size}`)
  }
})

test('a chunk that is longer than it says is refused, and so is the end', () => {
  const push = (text: string) => new Dechunker(() => {}).push(Buffer.from(text))
  assert.throws(() => push('2\r\nabc\r\n'), /longer than it says/)
  assert.throws(() => push('0\r\n\r\n'), /the response ended/)
})

test('quantiles are right to 3 %', () => {
  const histogram = new Histogram()
  for (let n = 1; n <= 10_000; n++) histogram.add(n)
  assert.equal(histogram.count, 10_000)
  assert.equal(histogram.max, 10_000)
  for (const share of [0.01, 0.5, 0.99]) {
    const error = histogram.quantile(share) / (10_000 * share)
    assert.ok(error > 0.96 && error < 1.01, `${share}: ${error}`)
  }
  assert.equal(new Histogram().quantile(0.5), 0)
})
