import type { StreamInfo } from '@nats-io/jetstream'
import { SpillwayError, shown } from '../../core/errors.ts'
import { asError } from './failure.ts'

/**
 * What an acknowledged append survives. `process`: the end of any process, and its restart from its disk. `machine`: also the
 * loss of a machine with its disk. `power`: `process`, and a power cut of all machines at once.
 */
export type JetStreamDurability = 'process' | 'machine' | 'power'

/** The oldest version whose acknowledgements can be relied on in a cluster. */
const oldest = [2, 10, 23] as const
const enoughReplicas = 3
const askMs = 5000

/** Throws `LOG_UNUSABLE` if `version` is too old. */
export function checkVersion(version: string, allowOld: boolean): void {
  const parts = version.replace(/^v/, '').split(/[.-]/).map(Number)
  for (const [n, least] of oldest.entries()) {
    const part = parts[n] ?? 0
    if (part > least) return
    if (part === least) continue
    if (allowOld) return
    throw unusable(
      `This nats-server has version ${version}; before ${oldest.join('.')} clusters lost what they had acknowledged. Update it, or set allowOld.`,
    )
  }
}

/** Nodes that keep a stream. A server that is no cluster keeps one copy, whatever number its configuration has. */
function copiesOf({ config, cluster }: StreamInfo): number {
  return Math.min(config.num_replicas, 1 + (cluster?.replicas?.length ?? 0))
}

/** Whether a stream survives the loss of a node. */
export function isReplicated(info: StreamInfo): boolean {
  return copiesOf(info) >= enoughReplicas
}

/** Throws `LOG_UNUSABLE` that names the setting to change, if the stream does not give a level. */
export async function checkDurability(
  level: JetStreamDurability,
  info: StreamInfo,
  monitors: readonly string[],
): Promise<void> {
  const { config, cluster } = info
  if (config.storage !== 'file')
    throw unusable(`The stream ${config.name} is kept in memory. Set its storage to "file".`)
  if (level === 'machine' && !isReplicated(info)) {
    const has = `The stream ${config.name} has ${copiesOf(info)} replicas`
    throw unusable(`${has}, durability "machine" takes ${enoughReplicas}: set replicas, in a cluster of as many nodes.`)
  }
  if (level !== 'power') return
  const nodes = new Set([cluster?.leader, ...(cluster?.replicas ?? []).map(({ name }) => name)].filter(isText))
  if (monitors.length === 0) {
    throw unusable(
      'Durability "power" needs the monitoring endpoints of the nodes, to see whether they write through: set monitor.',
    )
  }
  for (const monitor of monitors) {
    const { name, syncsAlways } = await lookAt(monitor)
    nodes.delete(name)
    if (syncsAlways) continue
    throw unusable(
      `The node ${name} acknowledges before its disk has the events. Set sync_interval: always in its jetstream block, or take durability "machine" or "process".`,
    )
  }
  if (nodes.size === 0 || cluster === undefined) return
  throw unusable(
    `Nobody says whether ${[...nodes].join(', ')} write through. Give monitor the endpoints of these nodes, too.`,
  )
}

/** What a node says of itself. [NATS, monitoring, /varz] */
async function lookAt(monitor: string): Promise<{ name: string; syncsAlways: boolean }> {
  try {
    const answer = await fetch(new URL('varz', monitor.endsWith('/') ? monitor : `${monitor}/`), {
      signal: AbortSignal.timeout(askMs),
    })
    const { server_name: name, jetstream } = (await answer.json()) as {
      server_name: string
      jetstream?: { config?: { sync_always?: boolean } }
    }
    return { name: String(name), syncsAlways: jetstream?.config?.sync_always === true }
  } catch (cause) {
    throw new SpillwayError(
      'LOG_UNUSABLE',
      `The monitoring endpoint ${shown(monitor)} does not answer: ${asError(cause).message}.`,
      {
        cause,
      },
    )
  }
}

function isText(value: string | undefined): value is string {
  return typeof value === 'string' && value !== ''
}

function unusable(message: string): SpillwayError {
  return new SpillwayError('LOG_UNUSABLE', message)
}
