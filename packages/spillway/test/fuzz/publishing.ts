import assert from 'node:assert/strict'
import { encodeEvents, JsonText, StoredBatch } from '../../src/core/event.ts'
import { type FuzzTarget, unlessRefused } from '../../src/testing/fuzz.ts'
import { batchFrame, eventText } from '../../src/wire/frame.ts'
import { formatHistoryLine, parseHistoryLine } from '../../src/wire/history.ts'
import { parseBatch, parseBatches } from '../../src/wire/publish.ts'

const event =
  '{"topic":"Order","type":"OrderPlaced","key":"A1","namespace":"eu","filterKeys":["a","b"],"payload":{"n":1.0,"a":[1e400,"\\u2028"]}}'
const bare = '{"topic":"T","type":"t"}'
const escaped = '{"topic":"T","type":"t","pay\\u006coad":[1.0]}'
const words = [
  '"payload":',
  '"topic":"T",',
  '"index":7,',
  '"id":"x",',
  '"events":[',
  '"filterKeys":[]',
  '"key":null,',
  ' ',
  '9007199254740993',
]

/** The body of a publish request: what is stored says the same when it is published again. */
export const body: FuzzTarget = {
  name: 'publish body',
  corpus: [
    event,
    bare,
    escaped,
    `[${event},${bare}]`,
    `{"index":7,"id":"x","events":[${bare},${event}]}`,
    ` {\n"events" : [ ${event} ] }\n`,
  ],
  dictionary: words,
  run(text) {
    const batch = unlessRefused(() => parseBatch(text, 'body'), 'INVALID')
    if (!batch) return
    for (const { payload } of batch.events) {
      assert.ok(payload === undefined || payload instanceof JsonText, 'a payload is text that was cut out')
      if (payload instanceof JsonText) assert.ok(text.includes(payload.text))
    }
    const pending = unlessRefused(() => encodeEvents(batch.events, batch.index), 'INVALID')
    if (!pending) return
    const texts = pending.events.map(eventText)
    const again = encodeEvents(parseBatch(`[${texts.join(',')}]`, 'again').events)
    assert.deepEqual(again.events.map(eventText), texts)
    assert.deepEqual(JSON.parse(`[${texts.join(',')}]`).map(payloadOf), eventsOf(text).map(payloadOf))
    assert.doesNotMatch(texts.join(''), /[\r\n]/)
  },
}

function eventsOf(text: string): unknown[] {
  const value = JSON.parse(text)
  if (Array.isArray(value)) return value
  return Object.hasOwn(value, 'events') ? value.events : [value]
}

function payloadOf(event: unknown): unknown {
  const { payload = null } = event as { payload?: unknown }
  return payload
}

/** A body of several lines: each is what it would be alone, or all are refused. */
export const bodies: FuzzTarget = {
  name: 'publish lines',
  corpus: [`${event}\n${bare}\r\n\n[${bare}]\n{"index":9,"events":[${bare}]}`],
  dictionary: [...words, '\n', `${bare}\n`],
  run(text) {
    const batches = unlessRefused(() => parseBatches(text), 'INVALID')
    if (!batches) return
    const alone = text
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => parseBatch(line, 'line'))
    assert.deepEqual(
      batches.map(({ index, events }) => ({ index, events })),
      alone.map(({ index, events }) => ({ index, events })),
    )
  },
}

/** A line of an exported history: what is read is written as it was. */
export const history: FuzzTarget = {
  name: 'history line',
  corpus: [
    `{"index":7,"time":1767225600000,"events":[${event}]}`,
    `{"events":[${bare},${bare}],"time":0,"index":9007199254740991}`,
  ],
  dictionary: [...words, '"time":1,', '8640000000000001'],
  run(text) {
    const batch = unlessRefused(() => parseHistoryLine(text, 'line 1'), 'INVALID')
    if (!batch) return
    const line = formatHistoryLine({ index: batch.index, time: batch.time, events: batch.events })
    assert.doesNotMatch(line, /[\r\n]/)
    const again = parseHistoryLine(line, 'again')
    assert.deepEqual(again, batch)
    const stored = new StoredBatch('e-1', batch.index, batch)
    assert.deepEqual(JSON.parse(batchFrame(batch.index, stored.cursor, batch.events.map(eventText))), stored.view)
  },
}
