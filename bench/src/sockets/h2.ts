const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const data = 0
const headers = 1
const reset = 3
const settings = 4
const goAway = 7
const windowUpdate = 8
const endOfHeaders = 4
const endOfStream = 1
const endless = 2 ** 31 - 1

/** All that a client sends to open `streams` streams, with windows so large that it never has to widen them. */
export function hello(path: string, streams: number): Buffer {
  const initialWindow = Buffer.alloc(6)
  initialWindow.writeUInt16BE(4)
  initialWindow.writeUInt32BE(endless, 2)
  const wider = Buffer.alloc(4)
  wider.writeUInt32BE(endless - 65_535)
  const block = Buffer.concat([
    // [RFC 7541, A] GET, http, then literals that are not indexed: path, authority, accept.
    Buffer.from([0x82, 0x86]),
    literal([0x04], path),
    literal([0x01], 'localhost'),
    literal([0x0f, 0x04], 'text/event-stream'),
  ])
  const requests = Array.from({ length: streams }, (_, n) => {
    return frame(headers, endOfHeaders | endOfStream, 2 * n + 1, block)
  })
  return Buffer.concat([preface, frame(settings, 0, 0, initialWindow), frame(windowUpdate, 0, 0, wider), ...requests])
}

function literal(name: readonly number[], value: string): Buffer {
  return Buffer.concat([Buffer.from([...name, value.length]), Buffer.from(value)])
}

export function frame(type: number, flags: number, stream: number, body: Buffer): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(body.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, body])
}

export const settingsAck: Buffer = frame(settings, 1, 0, Buffer.alloc(0))

/** What a client must know of the frames that it is sent. */
export interface Frames {
  /** The peer sent its settings and waits for a yes. */
  settings(): void
  data(stream: number, bytes: Buffer): void
}

/** Cuts a stream of bytes into frames. Throws where a stream or the connection is ended. */
export class FrameReader {
  readonly #frames: Frames
  #bytes: Buffer = Buffer.alloc(0)

  constructor(frames: Frames) {
    this.#frames = frames
  }

  push(chunk: Buffer): void {
    let bytes = this.#bytes.length > 0 ? Buffer.concat([this.#bytes, chunk]) : chunk
    while (bytes.length >= 9) {
      const size = 9 + bytes.readUIntBE(0, 3)
      if (bytes.length < size) break
      this.#see(bytes[3] ?? 0, bytes[4] ?? 0, bytes.readUInt32BE(5) & endless, bytes.subarray(9, size))
      bytes = bytes.subarray(size)
    }
    this.#bytes = bytes
  }

  #see(type: number, flags: number, stream: number, body: Buffer): void {
    if (type === settings && !(flags & 1)) this.#frames.settings()
    if (type === reset) throw new Error('a stream was reset')
    if (type === goAway) throw new Error('the peer said GOAWAY')
    if ((type === data || type === headers) && flags & endOfStream) throw new Error('a stream was ended')
    if (type === data && body.length > 0) this.#frames.data(stream, body)
  }
}
