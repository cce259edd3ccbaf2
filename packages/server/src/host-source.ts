import type { EventInput } from 'spillway'
import { HostSampler } from './host/sampler.ts'
import { type HostSystem, thisHost } from './host/system.ts'
import type { ServerLog } from './log.ts'

export interface HostSourceOptions {
  publish(events: readonly EventInput[]): Promise<unknown>
  log: ServerLog
  /** Milliseconds between the starts of two samples. Default 1,000. */
  interval?: number
  /** Default: the machine this runs on. */
  system?: HostSystem
}

/** Publishes what happens on a machine until it is stopped. */
export interface HostSource {
  /** Resolves when the last sample is done. Nothing is published afterwards. */
  stop(): Promise<void>
}

/** Publishes a sample at once and then one batch every `interval`. One that takes longer delays the next: none overlap. */
export function startHostSource({ publish, log, interval = 1000, system = thisHost() }: HostSourceOptions): HostSource {
  const sampler = new HostSampler(system)
  let stopped = false
  let timer: NodeJS.Timeout | undefined
  let running = tick()

  async function tick(): Promise<void> {
    const started = system.now()
    try {
      const events = await sampler.sample()
      if (!stopped) await publish(events)
    } catch (error) {
      log.error('A sample of this host could not be published', { error })
    }
    if (stopped) return
    timer = setTimeout(
      () => {
        running = tick()
      },
      Math.max(0, started + interval - system.now()),
    )
  }

  return {
    async stop() {
      stopped = true
      clearTimeout(timer)
      await running
    },
  }
}
