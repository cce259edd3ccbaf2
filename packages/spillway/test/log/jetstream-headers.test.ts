import assert from 'node:assert/strict'
import { test } from 'node:test'
import { headers } from '@nats-io/nats-core'
import { RawHeaders } from '../../src/log/jetstream/raw-headers.ts'

const block = 'NATS/1.0\r\nSpillway: 1 0 a.1 1 1 -\r\nNats-Msg-Id: a.1.1\r\n\r\n'
const encoder = new TextEncoder()

test('headers are read from the bytes before the payload', () => {
  const found = new RawHeaders({ data: payloadBehind(block) })
  assert.equal(found.get('Spillway'), '1 0 a.1 1 1 -')
  assert.equal(found.get('Nats-Msg-Id'), 'a.1.1')
})

test('a header that is not there is empty, and a name is no part of another', () => {
  const found = new RawHeaders({ data: payloadBehind(block) })
  assert.equal(found.get('Spillway-Key'), '')
  assert.equal(found.get('Msg-Id'), '')
})

test('what comes before the headers in the same buffer is no part of them', () => {
  const earlier = 'MSG x NATS/1.0\r\nSpillway: other\r\n\r\n\u00e9'
  assert.equal(new RawHeaders({ data: payloadBehind(earlier + block) }).get('Spillway'), '1 0 a.1 1 1 -')
})

test('where they are not before the payload, the client is asked', () => {
  const made = headers()
  made.set('Spillway', 'asked')
  for (const before of ['', 'no headers', block.slice(0, -1), `${block}x`, `x${'y'.repeat(500)}\r\n\r\n`]) {
    assert.equal(new RawHeaders({ data: payloadBehind(before), headers: made }).get('Spillway'), 'asked', before)
  }
  assert.equal(new RawHeaders({ data: new Uint8Array() }).get('Spillway'), '')
})

function payloadBehind(text: string): Uint8Array {
  const bytes = encoder.encode(`${text}payload`)
  return bytes.subarray(bytes.length - 'payload'.length)
}
