import type { Batch, Gap, StreamEvent } from '../core/event.ts'
import { microtask } from '../core/microtask.ts'
import type { Subscription } from '../core/subscription.ts'
import type { ClientSubscribeOptions, Status } from './client.ts'
import { type Controller, host, type OwnSignal } from './runtime.ts'

/** What a store shows at a moment. Replaced, never changed. */
export interface StoreSnapshot<State> {
  readonly state: State
  readonly status: Status | { readonly state: 'idle' }
  /** The last loss, since the state was loaded. */
  readonly gap: Gap | undefined
  /** Resumes after what the state holds. `''` before the first connection. */
  readonly cursor: string
}

/**
 * A stream as a value that changes. Its `subscribe` is that of Svelte's stores: it calls the listener at once and gives the
 * undo. With `useSyncExternalStore` of React, or whatever else watches values, use `listen` and `snapshot`.
 */
export interface StreamStore<State> {
  readonly snapshot: () => StoreSnapshot<State>
  /** Follows the stream for as long as anybody listens, and resumes it for the next one. Gives the undo. */
  readonly listen: (changed: () => void) => () => void
  readonly subscribe: (run: (snapshot: StoreSnapshot<State>) => void) => () => void
}

export interface StoreOptions<State, Event extends StreamEvent = StreamEvent> extends ClientSubscribeOptions {
  /** The state before the first batch. */
  initial: State
  /** The state after a batch. Must not change the one before. It also gets losses, as batches with a `gap` and no events. */
  reduce: (state: State, batch: Batch<Event>) => State
  /**
   * Loads the state from where it is kept: once the stream stands, and again after each loss, in place of `reduce`. What is
   * published from then on is reduced onto it, so it may see an event twice. Where it fails the store ends with its error.
   * The signal is aborted when nobody listens any more.
   */
  load?: ((signal: OwnSignal) => Promise<State>) | undefined
}

/** What is needed of a client, or of a broker, to follow a stream. */
export interface Streams {
  subscribe(options: ClientSubscribeOptions): Subscription
}

/** A store over the stream of a client. */
export function toStore<State, Event extends StreamEvent = StreamEvent>(
  client: { subscribe(options?: never): Subscription<Event> },
  options: StoreOptions<State, Event>,
): StreamStore<State> {
  const store = new Store(client as unknown as Streams, options as unknown as StoreOptions<State>)
  return { snapshot: store.snapshot, listen: store.listen, subscribe: store.subscribe }
}

/** From when somebody listens until nobody does. */
interface Run {
  readonly controller: Controller
  subscription: Subscription
}

class Store<State> {
  readonly #client: Streams
  readonly #options: StoreOptions<State>
  readonly #listeners = new Set<() => void>()
  #snapshot: StoreSnapshot<State>
  #run: Run | undefined
  #isLoaded = false

  constructor(client: Streams, options: StoreOptions<State>) {
    this.#client = client
    this.#options = options
    this.#snapshot = { state: options.initial, status: { state: 'idle' }, gap: undefined, cursor: '' }
  }

  readonly snapshot = (): StoreSnapshot<State> => this.#snapshot

  readonly listen = (changed: () => void): (() => void) => {
    // The same function twice is two listeners.
    const listener = () => changed()
    this.#listeners.add(listener)
    try {
      if (!this.#run) this.#start()
    } catch (error) {
      this.#run = undefined
      this.#listeners.delete(listener)
      throw error
    }
    return () => {
      if (!this.#listeners.delete(listener) || this.#listeners.size > 0) return
      // Not for who leaves and comes back at once, as components do.
      microtask(() => {
        if (this.#listeners.size === 0) this.#stop()
      })
    }
  }

  readonly subscribe = (run: (snapshot: StoreSnapshot<State>) => void): (() => void) => {
    const stop = this.listen(() => run(this.#snapshot))
    run(this.#snapshot)
    return stop
  }

  #start(): void {
    const { initial: _initial, reduce: _reduce, load: _load, onStatus, ...wanted } = this.#options
    const { cursor } = this.#snapshot
    const run = { controller: new host.AbortController() } as Run
    this.#run = run
    run.subscription = this.#client.subscribe({
      ...wanted,
      ...(cursor !== '' && { from: cursor }),
      onStatus: (status) => {
        onStatus?.(status)
        if (!isOver(run)) this.#change({ status })
      },
    })
    this.#follow(run).catch((error: unknown) => {
      if (isOver(run)) return
      run.subscription.close()
      this.#change({ status: { state: 'closed', error } })
    })
  }

  #stop(): void {
    const run = this.#run
    if (!run) return
    run.controller.abort()
    run.subscription.close()
    this.#run = undefined
    this.#snapshot = { ...this.#snapshot, status: { state: 'idle' } }
  }

  async #follow(run: Run): Promise<void> {
    const { subscription } = run
    const { load } = this.#options
    await subscription.ready
    if (load && !this.#isLoaded) await this.#load(run, load)
    for (;;) {
      let batch: Batch | undefined = await subscription.next()
      let { state, gap, cursor } = this.#snapshot
      // What has come together is shown together.
      try {
        for (; batch && !isOver(run); batch = subscription.take()) {
          if (batch.gap && load) {
            state = await load(signalOf(run))
            gap = undefined
          } else {
            state = this.#options.reduce(state, batch)
            gap = batch.gap ?? gap
          }
          cursor = batch.cursor
        }
      } finally {
        // Also what came before an error.
        if (!isOver(run)) this.#change({ state, gap, cursor })
      }
      if (isOver(run)) return
    }
  }

  async #load(run: Run, load: NonNullable<StoreOptions<State>['load']>): Promise<void> {
    const state = await load(signalOf(run))
    if (isOver(run)) return
    this.#isLoaded = true
    this.#change({ state, cursor: run.subscription.cursor })
  }

  #change(change: Partial<StoreSnapshot<State>>): void {
    this.#snapshot = { ...this.#snapshot, ...change }
    for (const listener of [...this.#listeners]) listener()
  }
}

function isOver({ controller }: Run): boolean {
  return controller.signal.aborted
}

function signalOf({ controller }: Run): OwnSignal {
  return controller.signal as OwnSignal
}

/** For {@link toStore}: the newest `count` events, oldest first. */
export function newest<Event extends StreamEvent = StreamEvent>(
  count: number,
): Pick<StoreOptions<readonly Event[], Event>, 'initial' | 'reduce'> {
  return {
    initial: [],
    reduce: (events, batch) =>
      batch.events.length === 0
        ? events
        : [...events, ...batch.events].slice(count === 0 ? Number.MAX_SAFE_INTEGER : -count),
  }
}

export interface ByKeyOptions<Event extends StreamEvent = StreamEvent> {
  /**
   * What an event is filed under. Default: its key, which is enough where the stream has one topic and one namespace; events
   * of others with the same key would replace each other.
   */
  key?: ((event: Event) => string) | undefined
  /** Which events end what they are filed under. Default: none. */
  remove?: ((event: Event) => boolean) | undefined
}

/**
 * For {@link toStore}: a materialised view, the newest payload by key. A loss may have touched any key: without a `load` the
 * view begins anew with what comes after it.
 */
export function byKey<Event extends StreamEvent = StreamEvent>({
  key = (event) => event.key,
  remove = () => false,
}: ByKeyOptions<Event> = {}): Pick<StoreOptions<ReadonlyMap<string, Event['payload']>, Event>, 'initial' | 'reduce'> {
  return {
    initial: new Map(),
    reduce: (view, { events, gap }) => {
      const next = new Map(gap ? [] : view)
      for (const event of events) {
        if (remove(event)) next.delete(key(event))
        else next.set(key(event), event.payload)
      }
      return next
    },
  }
}
