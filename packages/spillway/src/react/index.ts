import { useMemo, useRef, useSyncExternalStore } from 'react'
import type { Client } from '../client/client.ts'
import { newest, type StoreOptions, type StoreSnapshot, toStore } from '../client/store.ts'
import type { EventOf } from '../core/event.ts'

/** Options of {@link useStream} without a state of one's own. */
export type EventsOptions = Omit<StoreOptions<unknown>, 'initial' | 'reduce' | 'load'> & {
  /** Events that are kept. Default 100. */
  keep?: number | undefined
}

/**
 * A state that is reduced from a stream, see {@link StoreOptions}. Another `client`, other `topics` or `namespaces`, or a
 * `from` that is another text begin anew; functions may be new ones at each rendering.
 */
export function useStream<State, Topics extends object>(
  client: Client<Topics>,
  options: StoreOptions<State, EventOf<Topics>>,
): StoreSnapshot<State>
/** The newest events of a stream, oldest first. It follows while the component is mounted, and resumes. */
export function useStream<Topics extends object>(
  client: Client<Topics>,
  options?: EventsOptions,
): StoreSnapshot<readonly EventOf<Topics>[]>
export function useStream(client: Client, options: EventsOptions | StoreOptions<unknown> = {}): StoreSnapshot<unknown> {
  const latest = useRef(options)
  latest.current = options
  const { topics, namespaces, filter, from, exact, onLag } = options
  // A start that is no text may be another at each rendering, such as a time.
  const start = typeof from === 'object' ? 'an object' : from
  const wanted = JSON.stringify([topics, namespaces, filter, start, exact, onLag, 'keep' in options && options.keep])
  // biome-ignore lint/correctness/useExhaustiveDependencies: what is wanted is compared by its text
  const store = useMemo(() => {
    const given = latest.current
    const kept = 'reduce' in given ? given : { ...given, ...newest(given.keep ?? 100) }
    return toStore(client, {
      ...kept,
      reduce: (state, batch) => {
        const now = latest.current
        return ('reduce' in now ? now.reduce : kept.reduce)(state as never, batch)
      },
      ...('load' in given && {
        load: (signal) => {
          const now = latest.current
          return ('load' in now && now.load ? now.load : (given.load as NonNullable<typeof given.load>))(signal)
        },
      }),
      onStatus: (status) => latest.current.onStatus?.(status),
    } as StoreOptions<unknown>)
  }, [client, wanted])
  return useSyncExternalStore(store.listen, store.snapshot, store.snapshot)
}
