import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FrameReader, frame, hello } from '../../src/sockets/h2.ts'

test('frames are read wherever the bytes are cut, and settings are asked to be acknowledged', () => {
  const bytes = Buffer.concat([
    frame(4, 0, 0, Buffer.alloc(6)),
    frame(4, 1, 0, Buffer.alloc(0)),
    frame(1, 4, 3, Buffer.from([0x88])),
    frame(0, 0, 3, Buffer.from('one')),
    frame(0, 0, 199, Buffer.from('two')),
  ])
  for (let size = 1; size <= bytes.length; size++) {
    const seen: string[] = []
    const reader = new FrameReader({
      settings: () => seen.push('settings'),
      data: (stream, part) => seen.push(`${stream} ${part}`),
    })
    for (let at = 0; at < bytes.length; at += size) reader.push(bytes.subarray(at, at + size))
    assert.deepEqual(seen, ['settings', '3 one', '199 two'], `in pieces of ${size}`)
  }
})

test('the end of a stream or of the connection is not passed over', () => {
  const push = (bytes: Buffer) => new FrameReader({ settings() {}, data() {} }).push(bytes)
  assert.throws(() => push(frame(0, 1, 1, Buffer.from('last'))), /a stream was ended/)
  assert.throws(() => push(frame(3, 0, 1, Buffer.alloc(4))), /a stream was reset/)
  assert.throws(() => push(frame(7, 0, 0, Buffer.alloc(8))), /GOAWAY/)
})

test('a client opens each stream with a request of its own', () => {
  const ids: number[] = []
  const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
  let bytes = hello('/v1/events', 3)
  assert.equal(bytes.toString('latin1', 0, preface.length), preface)
  bytes = bytes.subarray(preface.length)
  while (bytes.length > 0) {
    if (bytes[3] === 1) ids.push(bytes.readUInt32BE(5))
    bytes = bytes.subarray(9 + bytes.readUIntBE(0, 3))
  }
  assert.deepEqual(ids, [1, 3, 5])
})
