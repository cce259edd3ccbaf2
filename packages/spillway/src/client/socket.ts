import { SpillwayError } from '../core/errors.ts'
import { type Connection, Refusal, type StreamRequest } from './connection.ts'
import { lineParser, type Message, violation } from './parse.ts'
import type { ClientWebSocket } from './runtime.ts'
import { firstWithin, SilenceLimit } from './silence.ts'

/** UTF-16 units that may wait for the reader: a WebSocket cannot be told to wait, so beyond it is closed, and resumed later. */
const mostWaiting = 2 ** 20

/** Opens a stream over a WebSocket. What a header would say of the token, the first message says. */
export async function openSocket(WebSocket: ClientWebSocket, request: StreamRequest): Promise<Connection> {
  const [resource = '', query = ''] = request.url.replace(/^http/, 'ws').split('?')
  const { authorization = '', 'x-nomad-token': nomad } = request.headers
  const token = nomad ?? /^Bearer +(.*)$/i.exec(authorization)?.[1]
  const connection = new SocketConnection(new WebSocket(resource), request)
  request.onCancel(() => connection.close())
  await connection.open(JSON.stringify({ subscribe: query, token }))
  return connection
}

class SocketConnection implements Connection {
  readonly #socket: InstanceType<ClientWebSocket>
  readonly #parse: (text: string) => Iterable<Message>
  readonly #limit = new SilenceLimit(firstWithin)
  readonly #silence: number
  #texts: string[] = []
  #waiting = 0
  #over: unknown
  #wake: (() => void) | undefined

  constructor(socket: InstanceType<ClientWebSocket>, { maxMessage, silence }: StreamRequest) {
    this.#socket = socket
    this.#parse = lineParser(maxMessage)
    this.#silence = silence
    socket.addEventListener('message', ({ data }) => this.#take(data))
    socket.addEventListener('close', ({ code }) => {
      this.#end(new SpillwayError('UNREACHABLE', `The WebSocket was closed with code ${code}.`))
    })
    // It is followed by `close`, which says as little.
    socket.addEventListener('error', () => {})
  }

  async open(question: string): Promise<void> {
    try {
      await this.#limit.during(
        () =>
          new Promise<void>((resolve, reject) => {
            this.#socket.addEventListener('open', () => resolve())
            this.#wake = () => reject(this.#over)
          }),
      )
      this.#wake = undefined
      this.#socket.send(question)
    } catch (error) {
      this.close()
      throw error
    }
  }

  async read(): Promise<Iterable<Message>> {
    if (this.#texts.length === 0 && this.#over === undefined) {
      await this.#limit.during(
        () =>
          new Promise<void>((resolve) => {
            this.#wake = resolve
          }),
      )
      this.#wake = undefined
    }
    if (this.#texts.length === 0) throw this.#over
    const text = this.#texts.join('')
    this.#texts = []
    this.#waiting = 0
    return this.#parse(text)
  }

  opened(): void {
    this.#limit.relax(this.#silence)
  }

  close(): void {
    this.#end(new SpillwayError('CLOSED', 'The WebSocket was closed by its reader.'))
    this.#socket.close()
  }

  #take(data: unknown): void {
    if (this.#over !== undefined) return
    if (typeof data !== 'string') {
      this.#end(violation('a message is not text'))
      this.#socket.close()
      return
    }
    this.#texts.push(data)
    this.#waiting += data.length
    this.#wake?.()
    if (this.#waiting <= mostWaiting || this.#texts.length === 1) return
    const message = 'The reader is slower than the stream. It goes on from its cursor.'
    this.#end(new Refusal(new SpillwayError('RENEW', message), undefined))
    this.#socket.close()
  }

  #end(reason: unknown): void {
    this.#over ??= reason
    this.#wake?.()
  }
}
