import { Worker } from 'node:worker_threads'
import { SpillwayError } from '../../core/errors.ts'
import type { Answer, Failed, Question, Reply, Request, WorkerOptions } from './worker.ts'

interface Waiting {
  resolve(answer: Answer): void
  reject(error: SpillwayError): void
}

/** A thread that works on the file. It keeps the process alive only while something is asked of it. */
export class Thread {
  readonly #worker: Worker
  readonly #waiting = new Map<number, Waiting>()
  #id = 0
  #ended: SpillwayError | undefined
  /** Resolves with the thread's first message. */
  readonly opened: Promise<Answer>

  constructor(options: WorkerOptions) {
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), {
      workerData: options,
      // A program that was given as text has a flag that no thread may have.
      ...(process.execArgv.some((flag) => flag.startsWith('--input-type')) && { execArgv: [] }),
    })
    this.opened = this.#answerTo(0)
    this.#worker.on('message', (reply: Reply | Failed) => this.#settle(reply))
    this.#worker.on('error', (cause: unknown) =>
      this.#end(`The log's thread failed: ${(cause as Error).message}.`, cause),
    )
    this.#worker.on('exit', () => this.#end("The log's thread has ended."))
  }

  /** Whether it could not open its file or has failed: it answers nothing more. */
  get hasEnded(): boolean {
    return this.#ended !== undefined
  }

  ask(question: Question): Promise<Answer> {
    if (this.#ended) return Promise.reject(this.#ended)
    const id = ++this.#id
    const answer = this.#answerTo(id)
    this.#worker.postMessage({ id, ...question } satisfies Request)
    return answer
  }

  #answerTo(id: number): Promise<Answer> {
    if (this.#waiting.size === 0) this.#worker.ref()
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
  }

  #settle(reply: Reply | Failed): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (this.#waiting.size === 0) this.#worker.unref()
    if (!('code' in reply)) {
      waiting?.resolve(reply)
      return
    }
    const error = new SpillwayError(reply.code, reply.message)
    if (reply.id === 0) this.#ended = error
    waiting?.reject(error)
  }

  #end(message: string, cause?: unknown): void {
    this.#ended ??= new SpillwayError('LOG_FAILED', message, { cause })
    for (const { reject } of this.#waiting.values()) reject(this.#ended)
    this.#waiting.clear()
  }
}
