import type { NatsCluster, NatsNode } from '@spillway/engines'
import type { Random } from 'spillway/testing'
import type { Server } from './server.ts'
import type { Traffic } from './traffic.ts'

/** What a fault is done to. */
export interface Site {
  readonly cluster: NatsCluster
  readonly stream: string
  readonly servers: readonly Server[]
  readonly traffic: Traffic
  readonly random: Random
}

/** One thing that goes wrong and is put right again, and what is waited for in between. */
export interface Fault {
  readonly name: string
  readonly needsCut?: boolean
  inject(site: Site): Promise<void>
}

/** Longer than the engine's followers wait for a leader before they elect another, in milliseconds. */
const untilElection = 10_000

export const faults: readonly Fault[] = [
  {
    name: 'the leader is killed',
    async inject(site) {
      const leader = await leaderOf(site)
      await leader.kill()
      await site.traffic.writesFlow(20)
      await leader.start()
    },
  },
  {
    name: 'the leader stands still',
    async inject(site) {
      const leader = await leaderOf(site)
      await leader.pause()
      await site.traffic.writesFlow(20)
      leader.resume()
    },
  },
  {
    name: 'a follower stands still',
    async inject(site) {
      const follower = await followerOf(site)
      await follower.pause()
      await site.traffic.writesFlow(150)
      follower.resume()
    },
  },
  {
    name: 'a follower does not hear the leader',
    needsCut: true,
    async inject(site) {
      const [leader, follower] = [await leaderOf(site), await followerOf(site)]
      site.cluster.cut(leader, follower)
      await changeOf(site, leader)
      await site.traffic.writesFlow(20)
      site.cluster.heal()
    },
  },
  {
    name: 'the leader does not hear a follower',
    needsCut: true,
    async inject(site) {
      const [leader, follower] = [await leaderOf(site), await followerOf(site)]
      site.cluster.cut(follower, leader)
      // The follower hears that it has a leader, so nobody elects another.
      await site.traffic.writesFlow(150)
      site.cluster.heal()
    },
  },
  {
    name: 'the leader is alone',
    needsCut: true,
    async inject(site) {
      site.cluster.isolate(await leaderOf(site))
      await site.traffic.writesFlow(20)
      site.cluster.heal()
    },
  },
  {
    name: 'a node with clients is alone',
    needsCut: true,
    async inject(site) {
      site.cluster.isolate(await nodeWithClients(site))
      // Those that it has leave it.
      await site.traffic.everyServerWrites()
      site.cluster.heal()
    },
  },
  {
    name: 'a node is started again',
    async inject({ cluster, random }) {
      const node = random.pick(cluster.nodes)
      await node.kill()
      await node.start()
    },
  },
  {
    name: 'a node loses its disk',
    async inject({ cluster, random }) {
      await random.pick(cluster.nodes).wipe()
    },
  },
  {
    name: 'a server is killed',
    async inject({ servers, random, traffic }) {
      const server = random.pick(servers)
      await server.kill()
      await traffic.writesFlow(20)
      await server.start()
    },
  },
]

function leaderOf({ cluster, stream }: Site): Promise<NatsNode> {
  return cluster.waitForLeader(stream)
}

async function followerOf(site: Site): Promise<NatsNode> {
  const leader = await leaderOf(site)
  return site.random.pick(site.cluster.nodes.filter((node) => node !== leader))
}

async function nodeWithClients({ cluster, random }: Site): Promise<NatsNode> {
  const numbers = await Promise.all(cluster.nodes.map(connectionsOf))
  return random.pick(cluster.nodes.filter((_, n) => (numbers[n] as number) > 0))
}

async function connectionsOf({ monitor }: NatsNode): Promise<number> {
  const answer = await fetch(`${monitor}/connz`, { signal: AbortSignal.timeout(5000) })
  return ((await answer.json()) as { num_connections: number }).num_connections
}

/** Waits until somebody else leads, or for as long as that would take if it came to it. */
async function changeOf({ cluster, stream, traffic }: Site, leader: NatsNode): Promise<void> {
  const deadline = performance.now() + untilElection
  await traffic.until('another leader', async () => {
    const now = await cluster.leaderOf(stream)
    return (now !== undefined && now !== leader) || performance.now() > deadline
  })
}
