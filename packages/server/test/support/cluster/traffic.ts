import { setTimeout } from 'node:timers/promises'
import { Random } from 'spillway/testing'
import { Observations } from './observations.ts'
import { type Acknowledgement, publishUntil } from './publisher.ts'
import { followLines, followWithClient, type Reader } from './reader.ts'
import type { Server } from './server.ts'

const publishers = 4
/** How long a condition may take, in milliseconds. */
const patience = 60_000

/** Publishers and readers at work on several servers of one log, and the waiting for what they come to. */
export class Traffic {
  readonly observations: Observations = new Observations()
  readonly readers: readonly Reader[]
  readonly #servers: readonly Server[]
  readonly #random: Random
  readonly #endOfWriting = new AbortController()
  readonly #endOfReading = new AbortController()
  readonly #publishing: Promise<unknown>
  readonly #last = new Map<Server, Acknowledgement>()
  readonly #lost = new Map<Server, string>()
  #failure: unknown
  #lastWrite = performance.now()
  #pause = 0
  #flowing = 0

  constructor({ servers, seed }: { servers: readonly Server[]; seed: number }) {
    this.#servers = servers
    this.#random = new Random(seed)
    this.readers = servers.flatMap((server, first) =>
      [followLines, followWithClient].map((follow) =>
        follow({
          record: this.observations.reader(`${follow.name} from ${server.name} on`),
          servers,
          first,
          signal: this.#endOfReading.signal,
          onFailure: (error) => {
            this.#failure ??= error
          },
        }),
      ),
    )
    this.#publishing = Promise.all(
      Array.from({ length: publishers }, (_, number) =>
        publishUntil({
          name: `p${number + 1}`,
          servers,
          random: new Random(seed + 1 + number),
          observations: this.observations,
          onAcknowledged: (acknowledgement) => this.#acknowledged(acknowledgement),
          onLost: (server, what) => this.#lost.set(server, what),
          signal: this.#endOfWriting.signal,
        }),
      ),
    )
  }

  /** Milliseconds of the longest time without an acknowledgement, to this moment, since this was last asked. */
  takeLongestPause(): number {
    const longest = Math.max(this.#pause, performance.now() - this.#lastWrite)
    this.#pause = 0
    return longest
  }

  /** Waits until `count` batches that were published from now on are acknowledged. */
  async writesFlow(count: number): Promise<void> {
    const now = performance.now()
    const until = this.#flowing + count
    await this.until(`${count} writes`, () => this.#flowing >= until && this.#lastBegan() > now)
  }

  /** Waits until every server has acknowledged a batch that was published from now on. */
  async everyServerWrites(): Promise<void> {
    const now = performance.now()
    await this.until('a write through every server', () =>
      this.#servers.every((server) => (this.#last.get(server)?.began ?? 0) > now),
    )
  }

  /** Waits until every reader has come to what is acknowledged now. */
  async readersCatchUp(): Promise<void> {
    const { newest } = this.observations
    await this.until(`all readers at ${newest}`, () => this.readers.every(({ record }) => record.position >= newest))
  }

  /** Makes one reader, that chance names, go on at another server. */
  oneHops(): void {
    this.#random.pick(this.readers).hop()
  }

  /** Stops publishing, waits until the readers have all, and ends them. */
  async end(): Promise<void> {
    this.#endOfWriting.abort()
    await this.#publishing
    await this.readersCatchUp()
    this.#endOfReading.abort()
  }

  /** Ends it without waiting for anything. */
  abandon(): void {
    this.#endOfWriting.abort()
    this.#endOfReading.abort()
  }

  /** Looks again and again whether a condition holds, and rejects when it takes too long or a reader has failed. */
  async until(what: string, holds: () => boolean | Promise<boolean>, most = patience): Promise<void> {
    const deadline = performance.now() + most
    while (!(await holds())) {
      if (this.#failure) throw this.#failure
      if (performance.now() > deadline) throw new Error(`Waited ${most / 1000} s in vain for ${what}. ${this.#state()}`)
      await setTimeout(20)
    }
  }

  #acknowledged(acknowledgement: Acknowledgement): void {
    this.#flowing++
    this.#pause = Math.max(this.#pause, acknowledgement.at - this.#lastWrite)
    this.#lastWrite = acknowledgement.at
    const { server, began } = acknowledgement
    if (began > (this.#last.get(server)?.began ?? 0)) this.#last.set(server, acknowledgement)
  }

  #lastBegan(): number {
    return Math.max(0, ...[...this.#last.values()].map(({ began }) => began))
  }

  #state(): string {
    const now = performance.now()
    const servers = this.#servers.map((server) => {
      const last = this.#last.get(server)
      const lost = this.#lost.get(server) ?? 'nothing'
      return `${server.name} wrote ${last ? `${Math.round(now - last.at)} ms ago` : 'nothing'}, last lost: ${lost}`
    })
    const readers = this.readers.map(({ record }) => `${record.name} is at ${record.position}`)
    return [`Acknowledged up to ${this.observations.newest}`, ...servers, ...readers].join('\n  ')
  }
}
