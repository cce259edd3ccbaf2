import { type ChildProcess, fork, spawn } from 'node:child_process'
import { createInterface, type Interface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { SocketContender } from './contender.ts'
import { compiled, noCompiler } from './native.ts'
import type { Usage } from './usage.ts'

/** A contender that does not do what was asked of it, and why: a finding, not a defect of the benchmark. */
export class Cannot extends Error {}

/** What the load client has seen since it was last asked. Times are microseconds from publishing to reading. */
export interface Seen {
  readonly events: number
  readonly bytes: number
  readonly p50: number
  readonly p99: number
  readonly max: number
}

interface Complaints {
  readonly lost: number
  readonly repeated: number
  readonly gone: number
  readonly failure: string
}

/** One contender's server and a load client for it, a process each. */
export class Stage {
  readonly #server: ServerProcess
  readonly #load: LoadClient
  readonly #streams: number
  #published = 0
  #expected = 0

  private constructor(server: ServerProcess, load: LoadClient, streams: number) {
    this.#server = server
    this.#load = load
    this.#streams = streams
  }

  static async open(contender: SocketContender, client: 'native' | 'node' = 'native'): Promise<Stage> {
    const server = await ServerProcess.start(contender.name)
    try {
      const load = await LoadClient.start(contender, server.port, client)
      return new Stage(server, load, contender.face.streams ?? 1)
    } catch (error) {
      server.end()
      throw error
    }
  }

  get pid(): number {
    return this.#server.pid
  }

  /** Opens streams and waits until the server counts them among its readers. `stalled` ones read nothing. */
  async connect(streams: number, { stalled = false }: { stalled?: boolean } = {}): Promise<void> {
    const count = streams / this.#streams
    const command = `${stalled ? 'stall' : 'open'} ${count} ${this.#published} 30000`
    const { missing, failure } = await this.#load.ask<{ missing: number; failure: string }>(command)
    if (missing > 0 || failure) throw new Cannot(failure || `${missing} of ${count} connections got no answer in 30 s`)
    this.#expected += streams
    await this.#until((readers) => readers >= this.#expected)
  }

  async disconnect(): Promise<void> {
    await this.#load.ask('close')
    this.#expected = 0
    await this.#until((readers) => readers === 0 || readers === Number.POSITIVE_INFINITY)
  }

  /** Publishes events in one turn of the server and waits until each reading stream has got them. */
  async deliver(events = 1): Promise<void> {
    this.#published = await this.#server.ask<number>('publish', events)
    await this.drained(20_000)
  }

  /** Publishes single events at a rate; answers how many. They may still be on their way. */
  async publishAt(perSecond: number, ms: number): Promise<number> {
    const before = this.#published
    this.#published = await this.#server.ask<number>('rate', perSecond, ms)
    return this.#published - before
  }

  /** Waits until each reading stream has seen every event, once and in order. */
  async drained(ms: number): Promise<void> {
    const answer = await this.#load.ask<Complaints & { short: number }>(`wait ${this.#published} ${ms}`)
    if (answer.short > 0) throw new Cannot(`${answer.short} streams did not get event ${this.#published} in ${ms} ms`)
    complain(answer)
  }

  /** What was received since the last call. */
  async seen(): Promise<Seen> {
    return this.#load.ask<Seen>('stats')
  }

  /** For how much of the time since the last call the server's main thread was busy, in per cent. */
  busy(): Promise<number> {
    return this.#server.ask('busy')
  }

  usage(): Promise<Usage> {
    return this.#server.ask('usage')
  }

  /** Resident bytes after a collection. */
  memory(): Promise<number> {
    return this.#server.ask('memory')
  }

  async close(): Promise<void> {
    // The server first: whoever closes a connection first keeps its port for a minute.
    await this.#server.end()
    await this.#load.end()
  }

  async #until(enough: (readers: number) => boolean): Promise<void> {
    const deadline = performance.now() + 10_000
    while (!enough((await this.#server.ask<number | null>('readers')) ?? Number.POSITIVE_INFINITY)) {
      if (performance.now() > deadline) throw new Cannot('the server does not count its readers right after 10 s')
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}

function complain({ lost, repeated, gone, failure }: Complaints): void {
  if (gone > 0) throw new Cannot(`${gone} connections ended: ${failure}`)
  if (lost > 0) throw new Cannot(`${lost} events were lost`)
  if (repeated > 0) throw new Cannot(`${repeated} events came twice or late`)
}

/** Longer than any single request takes: whoever is silent for so long hangs. */
const patience = 60_000

class ServerProcess {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve(answer: never): void; reject(error: Error): void }>()
  #asked = 0
  #port = 0

  private constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', ({ id, answer }: { id: number; answer: never }) => {
      this.#waiting.get(id)?.resolve(answer)
      this.#waiting.delete(id)
    })
    child.on('exit', (code, signal) => {
      for (const { reject } of this.#waiting.values()) reject(new Cannot(`the server ended (${signal ?? code})`))
    })
  }

  static async start(name: string): Promise<ServerProcess> {
    const child = fork(fileURLToPath(new URL('server.js', import.meta.url)), [name], {
      execArgv: ['--expose-gc', ...(process.env.BENCH_SERVER_FLAGS?.split(' ') ?? [])],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    const server = new ServerProcess(child)
    server.#port = await server.#answer<number>(0)
    return server
  }

  get port(): number {
    return this.#port
  }

  get pid(): number {
    return this.#child.pid as number
  }

  ask<Answer>(ask: string, ...args: number[]): Promise<Answer> {
    const id = ++this.#asked
    const answer = this.#answer<Answer>(id)
    this.#child.send({ id, ask, args })
    return answer
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill()
    // A server that is too busy to hear it.
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 2000)
    await ended
    clearTimeout(timer)
  }

  #answer<Answer>(id: number): Promise<Answer> {
    return new Promise<Answer>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Cannot(`the server was silent for ${patience / 1000} s`)), patience)
      this.#waiting.set(id, {
        resolve: (answer) => {
          clearTimeout(timer)
          resolve(answer)
        },
        reject: (error) => {
          clearTimeout(timer)
          reject(error)
        },
      })
    })
  }
}

/** The program that plays all clients; its commands and answers are in native/load.c. */
export class LoadClient {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  private constructor(child: ChildProcess, lines: Interface) {
    this.#child = child
    this.#lines = lines[Symbol.asyncIterator]()
  }

  static async start(
    { face }: Pick<SocketContender, 'face'>,
    port: number,
    client: 'native' | 'node',
  ): Promise<LoadClient> {
    const hex = (text: string | Buffer) => Buffer.from(text as string).toString('hex')
    const args = [`${port}`, face.mode, `${face.streams ?? 1}`, hex(face.request), hex(face.ready)]
    const native = client === 'native' && (await noCompiler()) === undefined
    const [program, before] = native
      ? [await compiled('load'), []]
      : [process.execPath, [fileURLToPath(new URL('load.js', import.meta.url))]]
    const child = spawn(program, [...before, ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
    return new LoadClient(child, createInterface(child.stdout))
  }

  async ask<Answer>(command: string): Promise<Answer> {
    this.#child.stdin?.write(`${command}\n`)
    const { value, done } = await this.#lines.next()
    if (done) throw new Error(`The load client ended at "${command}".`)
    return JSON.parse(value)
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.stdin?.end()
    await ended
  }
}
