import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { BrokerStatus } from 'spillway'
import type { Denial } from 'spillway/node'
import type { Engine } from './engine/engine.ts'

/** What a thread that serves HTTP has open. */
export interface ThreadCounts {
  readonly subscriptions: number
  readonly streams: number
}

/** Prometheus text exposition format 0.0.4. */
export const metricsType = 'text/plain; version=0.0.4; charset=utf-8'

/** What is told of as it happens. */
export interface Counted {
  denied(denial: Denial): void
  failed(): void
  /** What was not even a request of HTTP, or did not come in time. */
  badRequest(): void
}

/**
 * What the server counts, for whoever scrapes it. Labels come from closed sets, never from requests: strangers must not be
 * able to make series.
 */
export class Metrics implements Counted {
  readonly #denied = new Map<string, number>()
  readonly #delay = monitorEventLoopDelay({ resolution: 20 })
  readonly #engine: Pick<Engine, 'state'> | undefined
  #errors = 0
  #badRequests = 0

  /** `engine`: what keeps the history, if it is not this machine. */
  constructor(engine?: Pick<Engine, 'state'>) {
    this.#engine = engine
    this.#delay.enable()
  }

  denied({ code, action }: Denial): void {
    const labels = `code="${code}",action="${action}"`
    this.#denied.set(labels, (this.#denied.get(labels) ?? 0) + 1)
  }

  failed(): void {
    this.#errors++
  }

  badRequest(): void {
    this.#badRequests++
  }

  /** `threads`: what each that serves HTTP has open, where there are some. */
  text(
    { retained, bytes, subscriptions, newestIndex, floor }: BrokerStatus,
    threads: readonly ThreadCounts[] = [],
  ): string {
    const { heapUsed, rss } = process.memoryUsage()
    const open = threads.reduce((sum, thread) => sum + thread.subscriptions, subscriptions)
    const lines = [
      ...gauge('spillway_subscriptions', 'Open subscriptions.', open),
      ...(threads.length > 0
        ? head('spillway_thread_streams', 'gauge', 'Open streams of a thread that serves HTTP.')
        : []),
      ...threads.map(({ streams }, n) => `spillway_thread_streams{thread="${n + 1}"} ${streams}`),
      ...gauge('spillway_buffer_batches', 'Batches in memory.', retained),
      ...gauge('spillway_buffer_bytes', 'UTF-8 bytes of payloads and names in memory.', bytes),
      ...gauge('spillway_newest_index', 'Index of the newest batch.', newestIndex),
      ...gauge('spillway_floor_index', 'Newest index that is no longer kept.', floor),
      ...this.#engineLines(),
      ...gauge('process_resident_memory_bytes', 'Resident memory.', rss),
      ...gauge('nodejs_heap_used_bytes', 'Used heap.', heapUsed),
      ...gauge(
        'nodejs_eventloop_delay_seconds',
        'Delay of the event loop, 99th percentile.',
        this.#delay.percentile(99) / 1e9,
      ),
      ...head('spillway_denied_total', 'counter', 'Requests refused and streams ended for rights, room or limits.'),
      ...[...this.#denied].map(([labels, count]) => `spillway_denied_total{${labels}} ${count}`),
      ...head('spillway_errors_total', 'counter', 'Requests that failed inside.'),
      `spillway_errors_total ${this.#errors}`,
      ...head('spillway_bad_requests_total', 'counter', 'Connections that sent no request in time, or none of HTTP.'),
      `spillway_bad_requests_total ${this.#badRequests}`,
    ]
    return `${lines.join('\n')}\n`
  }

  #engineLines(): string[] {
    if (!this.#engine) return []
    const { isConnected, reconnects } = this.#engine.state
    return [
      ...gauge('spillway_log_connected', 'Whether the engine that keeps the log answers.', isConnected ? 1 : 0),
      ...head('spillway_log_reconnects_total', 'counter', 'Times that the engine came back.'),
      `spillway_log_reconnects_total ${reconnects}`,
    ]
  }

  close(): void {
    this.#delay.disable()
  }
}

function gauge(name: string, help: string, value: number): string[] {
  return [...head(name, 'gauge', help), `${name} ${value}`]
}

function head(name: string, type: 'gauge' | 'counter', help: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`]
}
