import { setImmediate } from 'node:timers/promises'
import { SpillwayError } from '../../src/core/errors.ts'

/** Lets everything happen that is ready to: all microtasks, and the I/O turn after them. */
export const turn = (): Promise<void> => setImmediate()

/** What became of a promise. */
export type Outcome<T> = { state: 'pending' } | { state: 'done'; value: T } | { state: 'failed'; error: unknown }

/** Follows a promise without waiting for it. */
export function watch<T>(promise: Promise<T>): { outcome: Outcome<T> } {
  const watched: { outcome: Outcome<T> } = { outcome: { state: 'pending' } }
  promise.then(
    (value) => {
      watched.outcome = { state: 'done', value }
    },
    (error: unknown) => {
      watched.outcome = { state: 'failed', error }
    },
  )
  return watched
}

/** What a promise has come to once everything that is ready has happened. */
export async function outcomeOf<T>(promise: Promise<T>): Promise<Outcome<T>> {
  const watched = watch(promise)
  await turn()
  return watched.outcome
}

/** A promise that the test settles. */
export function deferred<T = void>(): {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (reason: unknown) => void
} {
  let resolve: (value: T) => void = () => {}
  let reject: (reason: unknown) => void = () => {}
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  return { promise, resolve, reject }
}

/** For `assert.throws` and `assert.rejects`: a `SpillwayError` of this code whose message matches. */
export function withCode(code: SpillwayError['code'], message: RegExp = /./): (error: unknown) => boolean {
  return (error) => {
    if (error instanceof SpillwayError && error.code === code && message.test(error.message)) return true
    throw new Error(`Expected ${code} ${message}`, { cause: error })
  }
}
