import assert from 'node:assert/strict'
import { createParser } from 'eventsource-parser'
import { blockParser, lineParser, type Message, type Parser, parseFrame } from '../../src/client/parse.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import { type FuzzTarget, unlessRefused } from '../../src/testing/fuzz.ts'
import type { Random } from '../../src/testing/random.ts'
import { batchFrame, closedFrame, gapFrame, openFrame } from '../../src/wire/frame.ts'

/** What a stream said, and how its reading ended: with an error, or where the text did. */
interface Told {
  readonly messages: readonly Message[]
  readonly error: SpillwayError | undefined
}

/** What `parser` makes of pieces of a text. Throws for any error that a client would not know. */
export function told(parser: Parser, pieces: readonly string[]): Told {
  const messages: Message[] = []
  try {
    for (const piece of pieces) for (const message of parser(piece)) messages.push(message)
  } catch (error) {
    if (error instanceof SpillwayError && (error.code === 'PROTOCOL' || error.code === 'TOO_LARGE')) {
      return { messages, error }
    }
    throw error
  }
  return { messages, error: undefined }
}

/** `text` cut at random places, empty pieces among them. */
export function cut(text: string, random: Random): string[] {
  if (random.oneIn(16)) return text.split('')
  const places = Array.from({ length: random.below(6) }, () => random.below(text.length + 1)).sort((a, b) => a - b)
  return [...places, text.length].map((place, n) => text.slice(n === 0 ? 0 : places[n - 1], place))
}

/** Two readings tell the same. Errors are compared by their code: a message shows the piece that came last. */
function assertSame(actual: Told, expected: Told): void {
  assert.equal(gist(actual.messages), gist(expected.messages))
  assert.equal(actual.error?.code, expected.error?.code)
}

/** All that messages say, as text: that is compared faster. */
function gist(messages: readonly Message[]): string {
  return JSON.stringify(
    messages.map((message) =>
      message.kind === 'closed'
        ? [message.error.code, message.error.message, message.error.cursor, message.retry]
        : message,
    ),
  )
}

const frames = [
  '{"open":{"cursor":"e-1:0","oldest":null,"newest":7}}',
  '{"index":1,"cursor":"e-1:1","events":[{"topic":"T","type":"t","key":"é","namespace":"","filterKeys":[],"payload":{"__proto__":1}}]}',
  '{"gap":{"after":1,"before":5,"reason":"lag","cursor":"e-1:4"}}',
  '{"reset":{"after":1,"before":5,"reason":"epoch","cursor":"e-2:4"}}',
  '{"progress":{"cursor":"e-1:9"}}',
  '{"closed":{"code":"RENEW","message":"old","retry":0,"cursor":"e-1:9"}}',
  '{"closed":{"code":"toString","message":"later","retry":5}}',
  '{"weather":"fine"}',
]
const words = ['"cursor":"e-1:1"', '"index":1', '"events":[]', '"retry":null', '{"closed":{}}', '"code":"__proto__"']

const blockLimit = 300

/** [S8] Server-Sent Events, as our client reads them, against a parser that others wrote. */
export const events: FuzzTarget = {
  name: 'server-sent events',
  corpus: [
    ...frames.map((frame, n) => `id: e-1:${n}\ndata: ${frame}\n\nid: e-1:${n + 1}\n\n`),
    ...frames.map((frame, n) => `id: e-1:${n}\rdata: ${frame.replace(',"', ',\rdata:"')}\r\r`),
    `event: gap\r\nid:e-1:4\r\ndata:${frames[2]}\r\n\r\nevent: closed\r\ndata: ${frames[5]}\r\n\r\n`,
    'retry: 1000\nid: e-1:0\n\n: comment\n\n',
    `data: {\n${`data: ${' '.repeat(90)}\n`.repeat(3)}data: "progress":{"cursor":"e-1:9"}}\n\n`,
    'event: weather\ndata: fine\n\nevent:\ndata\n\ndata:\n\nid\n\nid: e-1:9\n\n',
  ],
  dictionary: [
    'id: e-1:3',
    'data: ',
    'data',
    'event: closed',
    'event: message',
    'retry: 5',
    ': ',
    '\n\n',
    '\r\r',
    '\r\n',
  ],
  run(input, random) {
    // A byte order mark is taken off where bytes become text; the last line has to end to be compared.
    const text = `${input.replace(/^\ufeff+/, '')}\n:`
    const whole = told(blockParser(blockLimit), [text])
    assertSame(told(blockParser(blockLimit), cut(text, random)), whole)
    assert.ok(whole.messages.length <= text.length)
    if (whole.error?.code !== 'TOO_LARGE') compareWithOther(text, whole)
  },
}

const names = [undefined, '', 'message', 'gap', 'reset', 'closed']

/** What tells no more than a position is nothing to the other parser: those messages are left out. */
function compareWithOther(text: string, { messages, error }: Told): void {
  const data: string[] = []
  createParser({ onEvent: (event) => names.includes(event.event) && data.push(event.data) }).feed(text)
  const others = told(parseAll, data)
  const comparable = (list: readonly Message[]) => list.filter(({ kind }) => kind !== 'position')
  const mine = comparable(messages)
  // A cursor that is none ends our reading, and the other goes on.
  assert.equal(gist(mine), gist(comparable(others.messages).slice(0, error ? mine.length : undefined)))
  assert.ok(error || !others.error, 'a frame that is refused by itself is refused in a stream')
  assert.ok(error || data.every(({ length }) => length < blockLimit), 'a message is no longer than the limit')
}

function* parseAll(text: string): Generator<Message> {
  const message = parseFrame(text)
  if (message) yield message
}

/** [S9] NDJSON, as our client reads it: each line of it is a message by itself. */
export const lines: FuzzTarget = {
  name: 'NDJSON',
  corpus: [...frames.map((frame) => `${frame}\n`), `${frames[0]}\r\n${frames[4]}\r\n\n \n${frames[5]}\n`],
  dictionary: [...words, '\n', '\r\n'],
  run(input, random) {
    const text = `${input}\n`
    const whole = told(lineParser(blockLimit), [text])
    assertSame(told(lineParser(blockLimit), cut(text, random)), whole)
    const alone: Message[] = []
    for (const line of text.split('\n')) {
      if (line.length > blockLimit) break
      if (line.trim() === '') continue
      const { messages, error } = told(parseAll, [line])
      alone.push(...messages)
      if (error) break
    }
    assert.equal(gist(whole.messages), gist(alone))
  },
}

/** One message of the protocol: what is understood can be said again, and means the same. */
export const frame: FuzzTarget = {
  name: 'message',
  corpus: frames,
  dictionary: words,
  run(text) {
    const message = unlessRefused(() => parseFrame(text), 'PROTOCOL')
    if (!message) return
    if (message.kind === 'closed') {
      const { error, retry } = message
      assert.ok(Number.isInteger(error.status) && typeof error.advice === 'string')
      const again = parseFrame(closedFrame(error, error.cursor ?? '', retry ?? 0))
      assert.ok(again?.kind === 'closed' && again.error.code === error.code && again.error.message === error.message)
      return
    }
    assert.deepEqual(parseFrame(frameOf(message)), message)
  },
}

function frameOf(message: Exclude<Message, { kind: 'closed' }>): string {
  if (message.kind === 'position') return openFrame(message.cursor, undefined, message.newest)
  if (message.kind === 'gap') return gapFrame(message.gap, message.cursor)
  const { index, cursor, events } = message.batch
  return batchFrame(
    index,
    cursor,
    events.map((event) => JSON.stringify(event)),
  )
}
