import assert from 'node:assert/strict'
import { createParser } from 'eventsource-parser'
import { blockParser, lineParser } from '../../src/client/parse.ts'
import { encodeEvents, StoredBatch } from '../../src/core/event.ts'
import { type FuzzTarget, unlessRefused } from '../../src/testing/fuzz.ts'
import { batchFrame, eventText } from '../../src/wire/frame.ts'
import { nomadBatch, nomadEvent } from '../../src/wire/ndjson.ts'
import { sseBlock } from '../../src/wire/sse.ts'
import { breaks } from '../support/injections.ts'
import { cut, told } from './streams.ts'

/** [S8, S9] Events with hostile names and payloads: one goes in, and it comes out of every encoder and parser. */
export const names: FuzzTarget = {
  name: 'events and back',
  corpus: [
    'Order|OrderPlaced|A1|eu|k1|text',
    '||||',
    'a|b|c|d|e|f',
    `T|t|${breaks.filter((text) => !/\p{Cc}/u.test(text)).join('')}`,
  ],
  dictionary: [...breaks, '|'],
  run(input, random) {
    const [topic = '', type = '', key = '', namespace = '', filterKey = '', ...rest] = input.split('|')
    const payload = random.pick<unknown>([rest.join('|'), { [rest.join('|')]: [rest] }, rest, null])
    const event = { topic, type, key, namespace, filterKeys: [filterKey], payload }
    const pending = unlessRefused(() => encodeEvents([event, event]), 'INVALID')
    if (!pending) return
    assert.doesNotMatch(topic + type + key + namespace + filterKey, /[\p{Cc}\p{Cs}]/u)
    const batch = new StoredBatch('e-1', 7, pending)
    const frame = batchFrame(7, batch.cursor, pending.events.map(eventText))
    const message = { kind: 'batch', cursor: 'e-1:7', at: { epoch: 'e-1', index: 7 }, batch: batch.view }
    const block = sseBlock(batch.cursor, frame)
    assert.deepEqual(told(blockParser(1e6), cut(block, random)).messages, [message])
    assert.deepEqual(told(lineParser(1e6), cut(`${frame}\n`, random)).messages, [message])
    assert.deepEqual(otherEvents(block), [{ id: 'e-1:7', event: undefined, data: frame }])
    checkNomad(batch)
  },
}

function otherEvents(text: string): unknown[] {
  const events: unknown[] = []
  createParser({ onEvent: ({ id, event, data }) => events.push({ id, event, data }) }).feed(text)
  return events
}

function checkNomad(batch: StoredBatch): void {
  const text = nomadBatch(
    batch.index,
    batch.events.map((event) => nomadEvent(batch.index, event)),
  )
  assert.equal(text.indexOf('\n'), text.length - 1)
  const { Events: events } = JSON.parse(text) as { Events: Record<string, unknown>[] }
  for (const [n, { Topic, Type, Key, Namespace, Payload }] of events.entries()) {
    const { topic, type, key, namespace, payload } = batch.view.events[n] as (typeof batch.view.events)[number]
    assert.deepEqual(
      { Topic, Type, Key, Namespace, Payload },
      { Topic: topic, Type: type, Key: key, Namespace: namespace, Payload: payload },
    )
  }
}
