import assert from 'node:assert/strict'
import { test } from 'node:test'
import { blockParser, lineParser, type Message, type Parser } from '../../src/client/parse.ts'
import { withCode } from '../support/waiting.ts'

const batch = (index: number, key = 'é\u2028😀') =>
  `{"index":${index},"cursor":"e-1:${index}","events":[{"topic":"T","type":"t","key":"${key}","namespace":"","filterKeys":[],"payload":null}]}`

function gist(message: Message): string {
  if (message.kind === 'batch') return `${message.batch.index} ${message.batch.events[0]?.key}`
  if (message.kind === 'gap') return `${message.gap.reason} ${message.gap.after}..${message.gap.before}`
  return message.kind === 'position' ? `at ${message.cursor}` : `closed ${message.error.code} ${message.retry}`
}

/** What a parser makes of bytes that come in pieces, decoded as the client decodes them. */
function parsed(parser: Parser, pieces: readonly Uint8Array[]): string[] {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  return pieces.flatMap((piece) => [...parser(decoder.decode(piece, { stream: true }))].map(gist))
}

/** Every way to cut `bytes` in two, whole, and byte by byte. */
function* cuts(bytes: Uint8Array): Generator<Uint8Array[]> {
  yield [bytes]
  yield [...bytes].map((byte) => Uint8Array.of(byte))
  for (let at = 1; at < bytes.length; at++) yield [bytes.subarray(0, at), bytes.subarray(at)]
}

const blocks = [
  'retry: 1000\nid: e-1:0\n\n',
  ': a comment\n\n',
  `id: e-1:1\ndata: ${batch(1)}\n\n`,
  'event: gap\nid: e-1:4\ndata: {"gap":{"after":1,"before":5,"reason":"lag","cursor":"e-1:4"}}\n\n',
  `id:e-1:5\ndata:{"index":5,"cursor":"e-1:5",\ndata:"events":[{"topic":"T","type":"t","key":"two lines"}]}\n\n`,
  'event: weather\ndata: fine\n\n',
  'unknown: field\nnocolon\n\n',
  'id: e-1:9\n\n',
  'event: closed\ndata: {"closed":{"code":"RENEW","message":"old","retry":0,"cursor":"e-1:9"}}\n\n',
  'id: e-1:10\ndata: not complete',
]
const told = ['at e-1:0', '1 é\u2028😀', 'lag 1..5', '5 two lines', 'at e-1:9', 'closed RENEW 0']

for (const [name, lineBreak] of [
  ['LF', '\n'],
  ['CRLF', '\r\n'],
  ['CR', '\r'],
] as const) {
  test(`blocks of an event stream with ${name} are read, wherever they are cut, with a byte order mark or without`, () => {
    for (const mark of ['', '\ufeff']) {
      const bytes = new TextEncoder().encode(mark + blocks.join('').replaceAll('\n', lineBreak))
      for (const pieces of cuts(bytes)) assert.deepEqual(parsed(blockParser(10_000), pieces), told)
    }
  })
}

const lines = [
  '{"open":{"cursor":"e-1:0","oldest":null,"newest":7}}',
  '',
  batch(1),
  '{"gap":{"after":1,"before":5,"reason":"retention","cursor":"e-1:4"}}',
  '{"weather":"fine"}',
  '{"progress":{"cursor":"e-1:9"}}',
  '{"reset":{"after":9,"before":1,"reason":"epoch","cursor":"e-2:0"}}',
  '{"closed":{"code":"NEVER_HEARD_OF","message":"","retry":null,"cursor":"e-2:0"}}',
  '{"not":"complete"',
]

for (const lineBreak of ['\n', '\r\n']) {
  test(`lines that end in ${JSON.stringify(lineBreak)} are read, wherever they are cut`, () => {
    const bytes = new TextEncoder().encode(lines.join(lineBreak))
    for (const pieces of cuts(bytes)) {
      assert.deepEqual(parsed(lineParser(10_000), pieces), [
        'at e-1:0',
        '1 é\u2028😀',
        'retention 1..5',
        'at e-1:9',
        'epoch 9..1',
        'closed INTERNAL undefined',
      ])
    }
  })
}

test('a line, or the data of a block, is refused once it is longer than allowed, however it comes', () => {
  const long = 'x'.repeat(101)
  assert.throws(() => [...lineParser(100)(long)], withCode('TOO_LARGE', /more than 100 UTF-16/))
  assert.throws(() => [...lineParser(100)(`${long}\n`)], withCode('TOO_LARGE'))
  const parser = lineParser(100)
  for (let n = 0; n < 100; n++) assert.deepEqual([...parser('x')], [])
  assert.throws(() => [...parser('x')], withCode('TOO_LARGE'))
  assert.throws(() => [...blockParser(100)('data: 1234567890\n'.repeat(10))], withCode('TOO_LARGE'))
})
