// Frames that a peer must not send, over TCP: [RFC 6455, 5 and 7.4]; threats S15.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { createServer, type SpillwayServer } from '../src/server.ts'

let server: SpillwayServer
let port: number
before(async () => {
  server = createServer()
  port = Number(new URL(await server.listen()).port)
})
after(() => server.close({ grace: 0 }))

/** A connection whose bytes a test makes itself. */
class Peer {
  readonly socket: Socket
  received = Buffer.alloc(0)
  readonly closed: Promise<void>
  #wake = () => {}

  constructor() {
    this.socket = connect(port, '127.0.0.1')
    this.socket.on('error', () => {})
    this.socket.on('data', (bytes: Buffer) => {
      this.received = Buffer.concat([this.received, bytes])
      this.#wake()
    })
    this.closed = new Promise((resolve) =>
      this.socket.on('close', () => {
        resolve()
        this.#wake()
      }),
    )
  }

  /** Asks for a WebSocket. Gives the head of the answer. */
  async open(headers: readonly string[] = []): Promise<string> {
    const key = randomBytes(16).toString('base64')
    const lines = ['GET /v1/events HTTP/1.1', `Host: localhost:${port}`, 'Connection: Upgrade', 'Upgrade: websocket']
    lines.push('Sec-WebSocket-Version: 13', `Sec-WebSocket-Key: ${key}`, ...headers, '', '')
    this.socket.write(lines.join('\r\n'))
    while (!this.received.includes('\r\n\r\n') && !this.socket.destroyed) await this.#news()
    const end = this.received.indexOf('\r\n\r\n')
    const head = this.received.subarray(0, end).toString('latin1')
    this.received = this.received.subarray(end + 4)
    return head
  }

  /** The close code that the server ends with; 0: it ends without one. */
  async closeCode(): Promise<number> {
    for (;;) {
      const code = closeCodeIn(this.received)
      if (code !== undefined) return code
      if (this.socket.destroyed) return 0
      await this.#news()
    }
  }

  async #news(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
  }
}

/** That of the close frame, once it is there. */
function closeCodeIn(bytes: Buffer): number | undefined {
  for (let at = 0; at + 2 <= bytes.length; ) {
    const [opcode, short] = [(bytes[at] as number) & 15, (bytes[at + 1] as number) & 127]
    const start = at + (short === 126 ? 4 : 2)
    if (start > bytes.length) return undefined
    const end = start + (short === 126 ? bytes.readUInt16BE(at + 2) : short)
    if (opcode === 8 && end <= bytes.length) return short < 2 ? 1005 : bytes.readUInt16BE(start)
    at = end
  }
  return undefined
}

interface Frame {
  opcode?: number
  payload?: Uint8Array | string
  fin?: boolean
  reserved?: number
  masked?: boolean
  /** Says this in place of the true length, in 64 bits. */
  length?: bigint
}

function frame({ opcode = 1, payload = '', fin = true, reserved = 0, masked = true, length }: Frame): Buffer {
  const body = Buffer.from(payload as string)
  const head = [(fin ? 0x80 : 0) | (reserved << 4) | opcode]
  const mask = masked ? 0x80 : 0
  const long = Buffer.alloc(8)
  if (length !== undefined || body.length > 65_535) {
    long.writeBigUInt64BE(length ?? BigInt(body.length))
    head.push(mask | 127, ...long)
  } else if (body.length > 125) head.push(mask | 126, body.length >> 8, body.length & 255)
  else head.push(mask | body.length)
  // A mask of zeros leaves the payload as it is.
  return Buffer.concat([Buffer.from(head), Buffer.alloc(masked ? 4 : 0), body])
}

const subscribe = frame({ payload: '{"subscribe":""}' })
const closing = (code: number) => Buffer.from([code >> 8, code & 255])

for (const [what, bytes, expected] of [
  ['a reserved bit', frame({ reserved: 4, payload: '{}' }), 1002],
  ['a reserved opcode', frame({ opcode: 3 }), 1002],
  ['a reserved control opcode', frame({ opcode: 11 }), 1002],
  ['a length of 2^63', frame({ length: 2n ** 63n }), 1009],
  ['a length beyond what a message may have', frame({ length: 100_000n }), 1009],
  ['a frame without a mask', frame({ masked: false, payload: '{}' }), 1002],
  ['a control frame in parts', frame({ opcode: 9, fin: false }), 1002],
  ['a control frame that is too long', frame({ opcode: 9, payload: 'x'.repeat(126) }), 1002],
  ['a continuation of nothing', frame({ opcode: 0, payload: 'x' }), 1002],
  ['a text within a text', Buffer.concat([frame({ fin: false, payload: 'x' }), frame({ payload: 'y' })]), 1002],
  ['text that is no UTF-8', frame({ payload: new Uint8Array([0x7b, 0xff, 0xfe, 0x7d]) }), 1007],
  ['bytes', frame({ opcode: 2, payload: '{}' }), 4500],
  ['a close code that is not for the wire', frame({ opcode: 8, payload: closing(1006) }), 1002],
  ['a close code that is none', frame({ opcode: 8, payload: closing(12) }), 1002],
  ['half a close code', frame({ opcode: 8, payload: 'x' }), 1002],
  ['a reason that is no UTF-8', frame({ opcode: 8, payload: new Uint8Array([3, 232, 0xff]) }), 1007],
  ['a close frame', frame({ opcode: 8, payload: closing(1000) }), 1000],
] as const) {
  test(`${what} ends the connection with its code, also in the midst of a stream`, async () => {
    for (const before of [Buffer.alloc(0), subscribe]) {
      const peer = new Peer()
      assert.match(await peer.open(), /^HTTP\/1\.1 101 /)
      peer.socket.write(Buffer.concat([before, bytes]))
      const code = await peer.closeCode()
      assert.equal(code, expected)
      peer.socket.destroy()
    }
    await idle()
  })
}

/** Nobody is left, and the server goes on. */
async function idle(): Promise<void> {
  while (server.broker.status.subscriptions > 0) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(await (await fetch(`http://127.0.0.1:${port}/healthz`)).text(), 'ok\n')
}

test('compression is not agreed to, whatever is offered', async () => {
  for (const offer of ['permessage-deflate', 'permessage-deflate; server_max_window_bits=99; client_max_window_bits']) {
    const peer = new Peer()
    const head = await peer.open([`Sec-WebSocket-Extensions: ${offer}`])
    assert.match(head, /^HTTP\/1\.1 101 /)
    assert.doesNotMatch(head, /permessage-deflate/i)
    peer.socket.write(frame({ reserved: 4, payload: randomBytes(20) }))
    assert.equal(await peer.closeCode(), 1002)
  }
})

test('heads that are too large or have too many lines open nothing, and hold up nothing', async () => {
  for (const headers of [
    Array.from({ length: 2000 }, (_, n) => `X-${n}: ${n}`),
    [`Sec-WebSocket-Protocol: a${' '.repeat(32_000)},b`],
    [`Sec-WebSocket-Extensions: ${'a;'.repeat(9000)}`],
  ]) {
    const peer = new Peer()
    const head = await peer.open(headers)
    assert.doesNotMatch(head, /^HTTP\/1\.1 101 /)
    peer.socket.destroy()
  }
  await idle()
})

test('a message in pieces of a byte is a message', async () => {
  const peer = new Peer()
  await peer.open()
  for (const byte of subscribe) peer.socket.write(Buffer.from([byte]))
  const letters = [...'{"unsubscribe":1}']
  for (const [n, letter] of letters.entries()) {
    peer.socket.write(frame({ opcode: n === 0 ? 1 : 0, fin: n === letters.length - 1, payload: letter }))
  }
  while (!peer.received.includes('"open"')) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(peer.socket.destroyed, false)
  peer.socket.destroy()
  await idle()
})

for (const [what, flood] of [
  ['empty continuation frames', Buffer.concat(Array.from({ length: 1000 }, () => frame({ opcode: 0, fin: false })))],
  [
    'pieces of one byte',
    Buffer.concat(Array.from({ length: 1000 }, () => frame({ opcode: 0, fin: false, payload: 'x' }))),
  ],
  ['pings', Buffer.concat(Array.from({ length: 1000 }, () => frame({ opcode: 9, payload: 'x'.repeat(125) })))],
] as const) {
  test(`a flood of ${what} takes no memory that grows with it`, async () => {
    const peer = new Peer()
    await peer.open()
    // It reads nothing: answers must not gather, either.
    peer.socket.pause()
    if (what !== 'pings') peer.socket.write(frame({ fin: false, payload: 'x' }))
    globalThis.gc?.()
    const before = process.memoryUsage()
    let most = 0
    for (let n = 0; n < 300 && !peer.socket.destroyed; n++) {
      if (!peer.socket.write(flood)) {
        // Where the server takes no more, that is the bound.
        const drained = await Promise.race([
          new Promise((resolve) => peer.socket.once('drain', () => resolve(true))),
          peer.closed.then(() => false),
          fetch(`http://127.0.0.1:${port}/healthz`).then(
            () => new Promise((resolve) => setTimeout(resolve, 50, false)),
          ),
        ])
        if (!drained) break
      }
      const { heapUsed, arrayBuffers, external } = process.memoryUsage()
      most = Math.max(
        most,
        heapUsed + external + arrayBuffers - before.heapUsed - before.external - before.arrayBuffers,
      )
    }
    peer.socket.destroy()
    assert.ok(most < 120 * 2 ** 20, `${Math.round(most / 2 ** 20)} MiB`)
    await idle()
  })
}
