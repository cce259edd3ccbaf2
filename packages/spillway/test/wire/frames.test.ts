import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SpillwayError } from '../../src/core/errors.ts'
import { encodeEvents, JsonText } from '../../src/core/event.ts'
import { batchFrame, closedFrame, eventText, gapFrame, openFrame, progressFrame } from '../../src/wire/frame.ts'
import { nomadBatch, nomadBookmark, nomadError, nomadEvent, nomadGap, nomadHeartbeat } from '../../src/wire/ndjson.ts'
import { sseBlock, ssePosition } from '../../src/wire/sse.ts'
import { SseParser, sseBlocks, sseMessages } from '../support/sse.ts'

const { events } = encodeEvents([
  { topic: 'Job', type: 'JobRegistered', key: 'web', namespace: 'default', payload: new JsonText('{"b":1.0,"a":1e2}') },
  { topic: 'T', type: 't', filterKeys: ['a', 'b'] },
])

test('frames are these bytes', () => {
  assert.equal(openFrame('e:7', 3, 7), '{"open":{"cursor":"e:7","oldest":3,"newest":7}}')
  assert.equal(openFrame('e:0', undefined, 0), '{"open":{"cursor":"e:0","oldest":null,"newest":0}}')
  assert.equal(
    batchFrame(7, 'e:7', events.map(eventText)),
    '{"index":7,"cursor":"e:7","events":[' +
      '{"topic":"Job","type":"JobRegistered","key":"web","namespace":"default","filterKeys":[],"payload":{"b":1.0,"a":1e2}},' +
      '{"topic":"T","type":"t","key":"","namespace":"","filterKeys":["a","b"],"payload":null}]}',
  )
  const gap = { after: 1, before: 5, reason: 'lag' } as const
  assert.equal(gapFrame(gap, 'e:4'), '{"gap":{"after":1,"before":5,"reason":"lag","cursor":"e:4"}}')
  assert.equal(
    gapFrame({ ...gap, reason: 'epoch' }, 'e:4'),
    '{"reset":{"after":1,"before":5,"reason":"epoch","cursor":"e:4"}}',
  )
  assert.equal(progressFrame('e:9'), '{"progress":{"cursor":"e:9"}}')
  assert.equal(
    closedFrame(new SpillwayError('SHUTDOWN', 'bye\n'), 'e:9', 500),
    '{"closed":{"code":"SHUTDOWN","message":"bye\\n","retry":500,"cursor":"e:9"}}',
  )
  assert.equal(
    closedFrame(new SpillwayError('REVOKED', 'no'), 'e:9', 500),
    '{"closed":{"code":"REVOKED","message":"no","retry":null,"cursor":"e:9"}}',
  )
})

test('the lines of Nomad are these bytes', () => {
  assert.equal(nomadHeartbeat, '{}\n')
  assert.equal(nomadBookmark(9007199254740991), '{"Index":9007199254740991}\n')
  assert.equal(
    nomadBatch(
      7,
      events.map((event) => nomadEvent(7, event)),
    ),
    '{"Events":[{"FilterKeys":null,"Index":7,"Key":"web","Namespace":"default","Payload":{"b":1.0,"a":1e2},"Topic":"Job","Type":"JobRegistered"},' +
      '{"FilterKeys":["a","b"],"Index":7,"Key":"","Namespace":"","Payload":null,"Topic":"T","Type":"t"}],"Index":7}\n',
  )
  assert.equal(nomadGap({ after: 1, before: 5, reason: 'lag' }), '{"Gap":{"After":1,"Before":5}}\n')
  assert.equal(nomadError(new SpillwayError('EXPIRED', 'a\nb')), '{"Error":{"Code":"EXPIRED","Message":"a\\nb"}}\n')
})

test('blocks of Server-Sent Events are these bytes', () => {
  assert.equal(sseBlock('e:7', '{}'), 'id: e:7\ndata: {}\n\n')
  assert.equal(sseBlock('e:7', '{}', 'gap'), 'event: gap\nid: e:7\ndata: {}\n\n')
  assert.equal(ssePosition('e:7'), 'id: e:7\n\n')
  assert.equal(ssePosition('e:7', 0), 'retry: 0\nid: e:7\n\n')
})

test('the parser that these tests trust reads as the standard says', () => {
  assert.deepEqual(
    sseMessages('data: a\n\ndata:b\r\rdata:  c\r\n\r\n').map(({ data }) => data),
    ['a', 'b', ' c'],
  )
  assert.deepEqual(sseMessages('data: a\ndata: b\nid: 1\n\n'), [{ type: 'message', data: 'a\nb', lastEventId: '1' }])
  assert.deepEqual(sseMessages('event: x\nid: 1\n\ndata: a\n\n'), [{ type: 'message', data: 'a', lastEventId: '1' }])
  assert.deepEqual(sseMessages('id: 1\0\ndata: a\n\n'), [{ type: 'message', data: 'a', lastEventId: '' }])
  assert.deepEqual(
    sseMessages('data: a\u2028b\u0085\n\n').map(({ data }) => data),
    ['a\u2028b\u0085'],
  )
  assert.deepEqual(sseMessages('data: not ended\n'), [])
  assert.throws(() => sseBlocks('dta: a\n\n'))
  assert.throws(() => sseBlocks(Uint8Array.of(0x64, 0xff, 0x0a)))
})

test('a stream that is cut into single bytes reads the same, and a cut one never yields half a batch', () => {
  const text = `${ssePosition('e:0', 5)}${sseBlock('e:1', '"é𝄞\u2028"')}${ssePosition('e:3')}${sseBlock('e:4', '{}', 'gap')}`
  const bytes = new TextEncoder().encode(text)
  const whole = sseBlocks(bytes)
  assert.equal(whole.length, 4)
  for (let cut = 0; cut <= bytes.length; cut++) {
    const blocks: unknown[] = []
    const parser = new SseParser((block) => blocks.push(block))
    for (const byte of bytes.subarray(0, cut)) parser.push(Uint8Array.of(byte))
    assert.deepEqual(blocks, whole.slice(0, blocks.length))
    assert.equal(parser.lastEventId, ['', 'e:0', 'e:1', 'e:3', 'e:4'][blocks.length])
  }
})
