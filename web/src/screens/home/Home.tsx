import { Page } from "@/parts/Page";
import { Loading } from "@/parts/states";

export function Home() {
  return (
    <Page title="Home">
      <Loading />
    </Page>
  );
}
