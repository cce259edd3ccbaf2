import { setTimeout } from 'node:timers/promises'
import type { Random } from 'spillway/testing'
import type { Observations } from './observations.ts'
import type { Server } from './server.ts'

/** An acknowledgement, and when the attempt that got it began, in milliseconds of `performance.now()`. */
export interface Acknowledgement {
  readonly server: Server
  readonly began: number
  readonly at: number
}

export interface PublisherOptions {
  readonly name: string
  readonly servers: readonly Server[]
  readonly random: Random
  readonly observations: Observations
  readonly onAcknowledged: (acknowledgement: Acknowledgement) => void
  /** Told of each lost answer: what there was instead. */
  readonly onLost: (server: Server, what: string) => void
  /** Ends it, once its last batch is settled. */
  readonly signal: AbortSignal
}

/** How long an answer may take before it counts as lost, in milliseconds. */
const patience = 3000
/** Between batches, so that it is faults that are tested and not how much two cores take. */
const pauseMs = 5
const pauseAfterLossMs = 50
/** One batch in so many is given up when its answer is lost: whether it is stored stays unknown. */
const givesUpOneIn = 20

/**
 * Publishes one batch after the other over HTTP, each through a server that chance names, under a key of its own. A lost
 * answer makes it publish again under the same key through another server, until there is an answer.
 */
export async function publishUntil({ name, signal, ...options }: PublisherOptions): Promise<void> {
  for (let number = 1; !signal.aborted; number++) {
    const id = `${name}-${number}`
    const events = eventsOf(id, 1 + options.random.below(3))
    options.observations.publishing(id, JSON.stringify(events.map(({ payload }) => payload)))
    await publish(name, id, JSON.stringify(events), options)
    await setTimeout(pauseMs)
  }
}

function eventsOf(id: string, count: number) {
  return Array.from({ length: count }, (_, part) => ({
    topic: 'Test',
    type: 'Published',
    key: id,
    payload: { id, part },
  }))
}

type Answer =
  | { readonly kind: 'stored'; readonly index: number }
  | { readonly kind: 'lost'; readonly what: string }
  | { readonly kind: 'refused'; readonly reason: string }

async function publish(
  publisher: string,
  id: string,
  body: string,
  { servers, random, observations, onAcknowledged, onLost }: Omit<PublisherOptions, 'name' | 'signal'>,
): Promise<void> {
  let server = random.pick(servers)
  for (;;) {
    const began = performance.now()
    const answer = await attempt(server, id, body)
    if (answer.kind === 'stored') {
      observations.acknowledged(publisher, id, answer.index)
      onAcknowledged({ server, began, at: performance.now() })
      return
    }
    if (answer.kind === 'refused') {
      observations.refused(id, answer.reason)
      return
    }
    onLost(server, answer.what)
    if (random.oneIn(givesUpOneIn)) return
    await setTimeout(pauseAfterLossMs)
    server = random.pick(servers.filter((other) => other !== server))
  }
}

async function attempt(server: Server, id: string, body: string): Promise<Answer> {
  try {
    const response = await fetch(`${server.url}/v1/events`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': id },
      body,
      signal: AbortSignal.timeout(patience),
    })
    const text = await response.text()
    if (response.ok) return { kind: 'stored', index: (JSON.parse(text) as { index: number }).index }
    const mayComeBack = response.status >= 500 || response.status === 429
    const what = `${response.status} ${text}`
    return mayComeBack ? { kind: 'lost', what } : { kind: 'refused', reason: what }
  } catch (error) {
    // The server ended, or did not answer in time.
    return { kind: 'lost', what: String(error) }
  }
}
