import { pathNames, perBurst, type SocketScenario } from '../scenario.ts'
import { delivery } from './deliver.ts'

const contenders = [...pathNames, perBurst]

/** The same events over every way that leads out of node:http. */
export const paths: readonly SocketScenario[] = [
  {
    id: 'path-single',
    title: 'One event at a time to 1,000 clients: CPU of the server per delivery',
    // With one event in a tick, these two do what others do.
    contenders: contenders.filter((name) => {
      return name !== 'response.write(Buffer) per tick' && name !== 'socket.write per event'
    }),
    streams: 1000,
    burst: 1,
  },
  {
    id: 'path-burst',
    title: 'Bursts of 10 events in one tick to 1,000 clients: CPU of the server per delivery',
    contenders,
    streams: 1000,
    burst: 10,
  },
].map(delivery)
