// Icons on a 24 x 24 grid. They always accompany a text, so they are hidden from screen readers.
const PATHS = {
  order: 'M6 7h12l-1 13H7L6 7Zm3 0a3 3 0 0 1 6 0',
  payment: 'M3 6.5h18v11H3v-11Zm0 4h18M6.500 14.500h3',
  message: 'M4 5.500h16v10.500H10l-4 3.500V16H4V5.500Z',
  visitors:
    'M12 11.500a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7Z' +
    'm-7 8.500c0-3.500 3-5.500 7-5.500s7 2 7 5.500',
  connection: 'M4 9.500a12 12 0 0 1 16 0M7 13a7.500 7.500 0 0 1 10 0M12 17.500v.01',
  bell: 'M6 16.500V11a6 6 0 0 1 12 0v5.500l1.500 2h-15l1.500-2ZM10 21h4',
  burst: 'M13 3 5 14h6l-1 7 8-11h-6l1-7Z',
};

export function Icon({ name }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
