import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { batchEnd } from '../../core/batch-text.ts'
import { errorTable, type SpillwayError } from '../../core/errors.ts'
import type { LogStart } from '../../core/log.ts'
import { type Group, type PackedOutcome, packOutcomes, unpackGroup } from './group.ts'
import { Reader } from './reader.ts'
import type { RowPage } from './table.ts'
import { type Bounds, type Opened, Writer, type WriterOptions } from './writer.ts'

// One file for both threads of a log: `workerData.role` says which one this is.

export type Question =
  | { readonly commit: Group; readonly now: number }
  | { readonly read: number; readonly limit: number; readonly maxBytes: number; readonly last: number }
  | { readonly locate: LogStart }
  | { readonly close: true }

/** Asked of a thread, and answered with the same `id`. */
export type Request = { readonly id: number } & Question

export interface Failed {
  readonly id: number
  readonly code: SpillwayError['code']
  readonly message: string
}

/** A page as it crosses to the other thread: the batches one behind the other, parted by `batchEnd`. */
export interface PageText extends Pick<Bounds, 'floor'> {
  readonly lost: number
  readonly indexes: readonly number[]
  /** Bytes of each batch. */
  readonly sizes: readonly number[]
  readonly text: string
}

export type Answer =
  | { readonly outcomes: readonly PackedOutcome[]; readonly bounds: Bounds }
  | { readonly page: PageText }
  | { readonly located: number }
  | { readonly closed: true }
  | { readonly opened: Opened | undefined }

export type Reply = { readonly id: number } & Answer

export interface WorkerOptions extends WriterOptions {
  readonly role: 'write' | 'read'
}

const port = parentPort as MessagePort

try {
  const options = workerData as WorkerOptions
  if (options.role === 'write') {
    const writer = new Writer(options)
    serve((request) => {
      if ('commit' in request) {
        const outcomes = writer.commit(unpackGroup(request.commit), request.now)
        return { outcomes: packOutcomes(outcomes), bounds: writer.bounds }
      }
      writer.close()
      return { closed: true }
    })
    port.postMessage({ id: 0, opened: writer.opened } satisfies Reply)
  } else {
    const reader = new Reader(options.path)
    serve((request) => {
      if ('read' in request) {
        const { read, limit, maxBytes, last } = request
        return { page: joined(reader.read(read, limit, maxBytes, last)) }
      }
      if ('locate' in request) return { located: reader.locate(request.locate) }
      reader.close()
      return { closed: true }
    })
    port.postMessage({ id: 0, opened: undefined } satisfies Reply)
  }
} catch (error) {
  port.postMessage(failed(0, error))
}

/** Answers each request in turn. */
function serve(answer: (question: Question) => Answer): void {
  port.on('message', (request: Request) => {
    const { id } = request
    try {
      const reply = answer(request)
      port.postMessage({ id, ...reply } satisfies Reply)
      if ('closed' in reply) port.close()
    } catch (error) {
      port.postMessage(failed(id, error))
    }
  })
}

function joined({ floor, lost, rows }: RowPage): PageText {
  return {
    floor,
    lost,
    indexes: rows.map(({ idx }) => idx),
    sizes: rows.map(({ data }) => Buffer.byteLength(data)),
    text: rows.map(({ data }) => data).join(batchEnd),
  }
}

function failed(id: number, error: unknown): Failed {
  const { code, message } = error as SpillwayError
  return { id, code: Object.hasOwn(errorTable, code) ? code : 'LOG_FAILED', message }
}
