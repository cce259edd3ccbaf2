// A board of orders that move from placed to paid to shipped, live, also across restarts of the server.
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { byKey, createClient, type EventOf } from 'spillway/client'
import { useStream } from 'spillway/react'

interface Topics {
  Order: { item: string; stage: 'placed' | 'paid' | 'shipped' }
}

const client = createClient<Topics>({ url: '/' })
const stages = ['placed', 'paid', 'shipped'] as const

function Board() {
  const { state, status, gap } = useStream(client, {
    ...byKey<EventOf<Topics>>({ remove: ({ type }) => type === 'OrderDelivered' }),
    topics: { Order: ['*'] },
    from: 'earliest',
  })
  const orders = [...state]
  return (
    <main>
      <h1>Orders</h1>
      <p id="status">{status.state === 'open' ? 'live' : status.state}</p>
      {gap && <p>Orders from before number {gap.before} are not shown.</p>}
      <div style={{ display: 'grid', gridTemplateColumns: 'repeat(3, 1fr)', gap: '1rem' }}>
        {stages.map((stage) => (
          <section key={stage} id={stage}>
            <h2>{stage}</h2>
            <ul>
              {orders
                .filter(([, order]) => order.stage === stage)
                .map(([key, { item }]) => (
                  <li key={key}>
                    {key}: {item}
                  </li>
                ))}
            </ul>
          </section>
        ))}
      </div>
    </main>
  )
}

createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <Board />
  </StrictMode>,
)
