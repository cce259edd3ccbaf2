/**
 * Servers of NATS that are one JetStream cluster, each in a place of its own of a network that can be cut. Where networks
 * cannot be made they share the loopback, and all but the cuts works.
 *
 * How long the cluster takes to notice and to elect is fixed in the engine: a follower waits 4 to 9 s for a leader that
 * is silent, a leader gives up after 10 s without a majority. No configuration makes a test of it quicker.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { freePort } from './free-port.ts'
import { natsPrograms } from './nats.ts'
import { createNetwork, type Network, whyNoNetwork } from './network.ts'
import { type EngineProcess, startProcess } from './process.ts'

/** One server of a cluster. */
export interface NatsNode {
  readonly name: string
  readonly url: string
  /** Its monitoring endpoint. */
  readonly monitor: string
  /** Its configuration, and below it what it stores. */
  readonly folder: string
  readonly state: 'up' | 'paused' | 'down'
  /** What it printed since it was last started, the last 64 KiB. */
  readonly output: string
  /** Ends it as a crash does, by `SIGKILL`. What it stored stays. */
  kill(): Promise<void>
  /** Stops it by `SIGSTOP`, until `resume`; resolves once it does nothing any more. Its connections stay. */
  pause(): Promise<void>
  resume(): void
  /** Starts it again, after `kill`, on what it stored. */
  start(): Promise<void>
  /** Kills it, deletes what it stored, and starts it again. */
  wipe(): Promise<void>
}

/** A JetStream cluster that runs. */
export interface NatsCluster {
  readonly nodes: readonly NatsNode[]
  /** The addresses of all nodes. */
  readonly urls: readonly string[]
  /** Whether `cut` and `isolate` work; `whyNoNetwork` says why not. */
  readonly canCut: boolean
  /** Drops from now on what `from` sends to `to`. What `to` sends still arrives. This process reaches both. */
  cut(from: NatsNode, to: NatsNode): void
  /** Cuts a node from all others, both ways. */
  isolate(node: NatsNode): void
  /** Undoes all cuts. */
  heal(): void
  /** The node that leads a stream, as it and the majority of those that keep the stream say; if they agree. */
  leaderOf(stream: string): Promise<NatsNode | undefined>
  /** Waits until a stream has a leader. Rejects after a minute. */
  waitForLeader(stream: string): Promise<NatsNode>
  /**
   * Waits until so many replicas of a stream, one on each node unless told otherwise, follow one leader and have all that
   * it had. Rejects after a minute.
   */
  waitUntilWhole(stream: string, replicas?: number): Promise<void>
  /** Stops all nodes, and deletes what they stored and their network. */
  stop(): Promise<void>
}

export interface NatsClusterOptions {
  /** Nodes. Default 3. */
  readonly size?: number
  /** Which `nats-server`. Default: the newest that is installed. */
  readonly program?: string
  /** Lines that are added to the configuration. */
  readonly config?: string
  /** Lines that are added to the `jetstream` block. */
  readonly jetstream?: string
  /** Bytes that a message may have. Default: 1 MiB, as the engine's. */
  readonly maxPayload?: number
  /** Whether nodes get networks of their own where such can be made; otherwise they share the loopback. Default true. */
  readonly canBeCut?: boolean
}

const patience = 60_000
const pause = 25
/** How long nodes may take to become one cluster before they begin anew, in milliseconds. */
const formingPatience = 2500

/** Starts a cluster, and resolves once it takes requests. Throws if there is no `nats-server` on this machine. */
export async function startNatsCluster({
  size = 3,
  canBeCut = true,
  ...options
}: NatsClusterOptions = {}): Promise<NatsCluster> {
  const program = options.program ?? natsPrograms()[0]?.program
  if (!program) throw new Error('There is no nats-server on this machine: `npm test` installs one where it can.')
  const network = canBeCut && whyNoNetwork() === undefined ? createNetwork(size) : undefined
  deleteLeftFolders()
  const folder = mkdtempSync(path.join(tmpdir(), `spillway-nats-cluster-${process.pid}-`))
  const deleteFolder = () => rmSync(folder, { recursive: true, force: true })
  process.on('exit', deleteFolder)
  const places = await Promise.all(Array.from({ length: size }, (_, place) => addressesOf(place, network)))
  const nodes = places.map((_, place) => createNode({ ...options, program, folder, network, places, place }))
  const cluster = clusterOf(nodes, network)
  const stop = async () => {
    await Promise.all(nodes.map((node) => node.kill()))
    network?.remove()
    deleteFolder()
    process.removeListener('exit', deleteFolder)
  }
  try {
    await form(nodes)
  } catch (error) {
    await stop()
    throw error
  }
  return { ...cluster, stop }
}

/**
 * Starts nodes for the first time. When all begin at one moment the engine now and then makes a cluster without one of
 * them, for good; then they begin anew.
 */
async function form(nodes: readonly NatsNode[]): Promise<void> {
  for (let attempts = 10; attempts > 0; attempts--) {
    await Promise.all(nodes.map((node) => (node.state === 'down' ? node.start() : node.wipe())))
    const deadline = performance.now() + formingPatience
    while (performance.now() < deadline) {
      const views = await Promise.all(nodes.map(viewOf))
      const leaders = new Set(views.map((view) => view?.meta_cluster?.leader ?? ''))
      const isLed = leaders.size === 1 && !leaders.has('')
      // Newer versions tell what followers take for it, too.
      const leading = views[nodes.findIndex(({ name }) => leaders.has(name))]
      const replicas = leading?.meta_cluster?.replicas ?? []
      const isWhole = replicas.length === nodes.length - 1 && replicas.every(({ current }) => current)
      if (isLed && isWhole) return
      await setTimeout(pause)
    }
  }
  throw new Error('The nodes did not become one cluster.')
}

/** Those of processes that were killed. */
function deleteLeftFolders(): void {
  for (const name of readdirSync(tmpdir())) {
    const owner = /^spillway-nats-cluster-(\d+)-/.exec(name)?.[1]
    if (owner !== undefined && !isAlive(Number(owner)))
      rmSync(path.join(tmpdir(), name), { recursive: true, force: true })
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

interface Addresses {
  readonly clients: string
  readonly monitor: string
  readonly routes: string
}

async function addressesOf(place: number, network: Network | undefined): Promise<Addresses> {
  const host = network?.addresses[place]
  if (host) return { clients: `${host}:4222`, monitor: `${host}:8222`, routes: `${host}:6222` }
  const local = async () => `127.0.0.1:${await freePort()}`
  return { clients: await local(), monitor: await local(), routes: await local() }
}

interface NodeOptions extends NatsClusterOptions {
  readonly program: string
  readonly folder: string
  readonly network: Network | undefined
  readonly places: readonly Addresses[]
  readonly place: number
}

function createNode({ program, network, places, place, ...options }: NodeOptions): NatsNode {
  const { clients, monitor, routes } = places[place] as Addresses
  const name = `n${place + 1}`
  const folder = path.join(options.folder, name)
  const store = path.join(folder, 'store')
  const file = path.join(folder, 'nats.conf')
  mkdirSync(folder)
  writeFileSync(
    file,
    `server_name: ${name}
listen: "${clients}"
http: "${monitor}"
${options.maxPayload ? `max_payload: ${options.maxPayload}` : ''}
jetstream {
  store_dir: "${store}"
  ${options.jetstream ?? ''}
}
cluster {
  name: spillway
  listen: "${routes}"
  routes: [${places.map((other) => `"nats://${other.routes}"`).join(', ')}]
}
${options.config ?? ''}
`,
  )
  let running: EngineProcess | undefined
  let paused = false
  const node: NatsNode = {
    name,
    url: `nats://${clients}`,
    monitor: `http://${monitor}`,
    folder,
    get state() {
      if (!running) return 'down'
      return paused ? 'paused' : 'up'
    },
    get output() {
      return running?.output ?? ''
    },
    async kill() {
      const ended = running
      running = undefined
      paused = false
      await ended?.stop()
    },
    async pause() {
      if (!running) throw new Error(`${name} is down.`)
      const { pid } = running
      paused = true
      running.signal('SIGSTOP')
      // One of its threads takes the signal and stops the others; on a busy machine they work on for milliseconds.
      await until(`${name} stands still`, async () => (isStopped(pid) ? true : undefined), 1)
    },
    resume() {
      paused = false
      running?.signal('SIGCONT')
    },
    async start() {
      if (running) throw new Error(`${name} runs.`)
      const [command, args] = network?.command(place, program, ['-c', file]) ?? [program, ['-c', file]]
      running = await startProcess(command, args, (output) => output.includes('Server is ready'))
    },
    async wipe() {
      await node.kill()
      rmSync(store, { recursive: true, force: true })
      await node.start()
    },
  }
  return node
}

function isStopped(pid: number): boolean {
  if (process.platform !== 'linux') return true
  const tasks = `/proc/${pid}/task`
  return readdirSync(tasks).every((task) => /\) [Tt] /.test(readFileSync(`${tasks}/${task}/stat`, 'utf8')))
}

function clusterOf(nodes: readonly NatsNode[], network: Network | undefined): Omit<NatsCluster, 'stop'> {
  const cut = (from: NatsNode, to: NatsNode) => {
    if (!network) throw new Error(`Nothing can be cut: ${whyNoNetwork() ?? 'the nodes share the loopback'}.`)
    network.cut(nodes.indexOf(from), nodes.indexOf(to))
  }
  const leaderOf = async (stream: string) => leaderAmong(nodes, await replicasOf(nodes, stream))
  return {
    nodes,
    urls: nodes.map(({ url }) => url),
    canCut: network !== undefined,
    cut,
    isolate(node) {
      for (const other of nodes.filter((other) => other !== node)) {
        cut(node, other)
        cut(other, node)
      }
    },
    heal: () => network?.heal(),
    leaderOf,
    waitForLeader: (stream) => until(`a leader of ${stream}`, () => leaderOf(stream)),
    async waitUntilWhole(stream, count = nodes.length) {
      let wanted = Number.POSITIVE_INFINITY
      let seen = ''
      await until(
        () => `${count} replicas of ${stream}:${seen}`,
        async () => {
          const replicas = await replicasOf(nodes, stream)
          const leader = leaderAmong(nodes, replicas)
          seen = [...replicas].map(([node, replica]) => `\n  ${node.name}: ${shown(replica)}`).join('')
          const led = leader && replicas.get(leader)
          if (!led) return undefined
          const all = [...replicas.values()]
          const reached = all.every(({ cluster, state }) => cluster.leader === leader.name && state.last_seq >= wanted)
          const followers = led.cluster.replicas ?? []
          const current = followers.every((follower) => follower.current && !follower.offline)
          const complete = all.length === count && followers.length === count - 1
          // Compared with what the leader has had before, for it may go on.
          wanted = led.state.last_seq
          return complete && current && reached ? true : undefined
        },
      )
    },
  }
}

/** What a server says of itself at `/jsz`, as far as it is read here. */
interface ServerView {
  readonly meta_cluster?: { readonly leader?: string; readonly replicas?: readonly { readonly current: boolean }[] }
  readonly account_details?: readonly { readonly stream_detail?: readonly Replica[] }[]
}

interface Replica {
  readonly name: string
  readonly cluster: {
    readonly leader?: string
    readonly replicas?: readonly { readonly name: string; readonly current: boolean; readonly offline?: boolean }[]
  }
  readonly config: { readonly num_replicas: number }
  readonly state: { readonly last_seq: number }
}

async function viewOf({ monitor, state }: NatsNode): Promise<ServerView | undefined> {
  if (state !== 'up') return undefined
  try {
    const answer = await fetch(`${monitor}/jsz?accounts=true&streams=true&config=true`, {
      signal: AbortSignal.timeout(1000),
    })
    return answer.ok ? ((await answer.json()) as ServerView) : undefined
  } catch {
    // It starts, ends, or is too busy to answer.
    return undefined
  }
}

async function replicasOf(nodes: readonly NatsNode[], stream: string): Promise<Map<NatsNode, Replica>> {
  const replicas = new Map<NatsNode, Replica>()
  await Promise.all(
    nodes.map(async (node) => {
      const details = (await viewOf(node))?.account_details?.flatMap((account) => account.stream_detail ?? [])
      const found = details?.find(({ name, cluster }) => name === stream && cluster)
      if (found) replicas.set(node, found)
    }),
  )
  return replicas
}

function shown({ cluster, state }: Replica): string {
  return `up to ${state.last_seq}, ${JSON.stringify(cluster)}`
}

function leaderAmong(nodes: readonly NatsNode[], replicas: ReadonlyMap<NatsNode, Replica>): NatsNode | undefined {
  return nodes.find((node) => {
    const own = replicas.get(node)
    if (own?.cluster.leader !== node.name) return false
    const agreeing = [...replicas.values()].filter(({ cluster }) => cluster.leader === node.name)
    return agreeing.length > own.config.num_replicas / 2
  })
}

/** Asks again and again until there is an answer, and rejects after a minute without. */
async function until<T>(what: string | (() => string), ask: () => Promise<T | undefined>, wait = pause): Promise<T> {
  const deadline = performance.now() + patience
  for (;;) {
    const answer = await ask()
    if (answer !== undefined) return answer
    if (performance.now() > deadline) {
      throw new Error(`Waited ${patience / 1000} s in vain for ${typeof what === 'string' ? what : what()}`)
    }
    await setTimeout(wait)
  }
}
